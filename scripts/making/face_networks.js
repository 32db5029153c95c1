// What the original networks of face-api give; see face_networks.py.
// Launch: node face_networks.js PACKAGE FOLDER, which has shapes.json, NAME.bin and random/
const fs = require('fs');
const path = require('path');
const Module = require('module');

const paths = [process.cwd(), ...(process.env.NODE_PATH || '').split(path.delimiter)];
const resolve = Module._resolveFilename;
// The package asks for a backend in WebAssembly, which is not used.
Module._resolveFilename = (request, ...rest) => {
  if (request === '@tensorflow/tfjs-backend-wasm') return 'path';
  return request.startsWith('@tensorflow/') ? resolve(request, null, false, { paths }) : resolve(request, ...rest);
};
const [packageFolder, folder] = process.argv.slice(2);
const faceapi = require(path.join(packageFolder, 'dist', 'face-api.node-wasm.js'));
const tf = require('@tensorflow/tfjs');

const numbers = (values) => Array.from(values, (value) => Number(Number(value).toPrecision(9)));

async function main() {
  await tf.setBackend('cpu');
  const nets = faceapi.nets;
  const names = ['tinyFaceDetector', 'faceLandmark68Net', 'faceExpressionNet', 'ageGenderNet', 'faceRecognitionNet'];
  for (const name of names) await nets[name].loadFromDisk(path.join(packageFolder, 'model'));
  const random = new faceapi.FaceRecognitionNet();
  await random.loadFromDisk(path.join(folder, 'random'));
  const shapes = JSON.parse(fs.readFileSync(path.join(folder, 'shapes.json')));
  const images = Object.fromEntries(Object.entries(shapes).map(([name, shape]) =>
    [name, tf.tensor3d(Float32Array.from(fs.readFileSync(path.join(folder, `${name}.bin`))), shape)]));

  const told = {};
  for (const [name, image] of Object.entries(images)) {
    if (name === 'astronaut') continue;
    const input = await faceapi.toNetInput(image);
    const points = await nets.faceLandmark68Net.forwardInput(input).data();
    told[name] = {
      landmarks: numbers(points),
      expressions: numbers(await nets.faceExpressionNet.runNet(input).data()),
      age: (await nets.ageGenderNet.runNet(input).age.data())[0],
      identity: numbers(await nets.faceRecognitionNet.forwardInput(input).data()),
      random: numbers(await random.forwardInput(input).data()),
      detector: numbers((await nets.tinyFaceDetector.forwardInput(input, 416).data()).slice(0, 325)),
    };
  }
  const options = new faceapi.TinyFaceDetectorOptions();
  const found = await faceapi.detectSingleFace(images.astronaut, options)
    .withFaceLandmarks().withFaceExpressions().withAgeAndGender().withFaceDescriptor();
  const { x, y, width, height } = found.detection.box;
  told.astronaut = {
    score: found.detection.score,
    box: [x, y, x + width, y + height],
    landmarks: numbers(found.landmarks.positions.flatMap((point) => [point.x, point.y])),
    age: found.age,
    happy: found.expressions.happy,
    identity: numbers(found.descriptor),
  };
  console.log(JSON.stringify(told));
}

main();
