// Everything that the service can be asked, for a long time, by somebody else's client: `make soak`, or by hand
//   k6 run -e HTTP=http://127.0.0.1:8000 -e GRPC=127.0.0.1:50051 -e PICTURE=photo.jpg -e SECONDS=600 tests/ops/soak.js
// Paths are relative to this file. Each scenario waits for its answers, so that what is measured is the service, not a queue.
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import grpc from 'k6/net/grpc';
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const picture = open(__ENV.PICTURE, 'b');
const encoded = encoding.b64encode(picture);
const seconds = Number(__ENV.SECONDS);
const frames = 30; // of one stream

const client = new grpc.Client();
client.load(['../../proto'], 'reppose/v1/pose.proto');

const unary = new Trend('unary_ms', true);
const streamed = new Trend('stream_frame_ms', true);
const answers = { pose: new Counter('answers_pose'), unary: new Counter('answers_unary'),
  stream: new Counter('answers_stream'), frames: new Counter('answers_frames'),
  refused: new Counter('answers_refused') };

const scenario = (name, vus) => ({ executor: 'constant-vus', exec: name, vus, duration: `${seconds}s`, gracefulStop: '20s' });
export const options = {
  scenarios: { pose: scenario('pose', 2), unary_calls: scenario('unaryCalls', 1), streams: scenario('streams', 1),
    sessions: scenario('sessions', 1), strangers: scenario('strangers', 1), probes: scenario('probes', 1) },
  thresholds: {
    checks: ['rate==1'], // nothing failed, and nothing was answered that should have been refused
    'http_req_duration{answer:pose}': ['p(99)<5000'], // waits of seconds are jams, on any machine
    unary_ms: ['p(99)<5000'],
    stream_frame_ms: ['p(99)<5000'],
    answers_pose: ['count>0'], answers_unary: ['count>0'], answers_stream: ['count>0'], answers_frames: ['count>0'],
    answers_refused: ['count>0'],
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  discardResponseBodies: false,
};

const jpeg = { headers: { 'Content-Type': 'image/jpeg' }, tags: { answer: 'pose' } };

function told(counter, answer, right) {
  if (check(answer, right)) answers[counter].add(1);
}

export function pose() {
  told('pose', http.post(`${__ENV.HTTP}/v1/pose`, picture, jpeg), {
    'a picture is answered': (answer) => answer.status === 200 && answer.json('poses.0.keypoints').length > 0,
  });
}

export function unaryCalls() {
  if (exec.vu.iterationInScenario === 0) client.connect(__ENV.GRPC, { plaintext: true });
  const began = Date.now();
  const answer = client.invoke('reppose.v1.PoseService/Estimate', { image: encoded });
  unary.add(Date.now() - began);
  told('unary', answer, {
    'a call is answered': (each) => each.status === grpc.StatusOK && each.message.poses[0].keypoints.length > 0,
  });
}

export function streams() {
  if (exec.vu.iterationInScenario === 0) client.connect(__ENV.GRPC, { plaintext: true });
  return new Promise((ended) => {
    const stream = new grpc.Stream(client, 'reppose.v1.PoseService/EstimateStream');
    let next = 1, sent = 0, right = 0;
    const send = () => {
      sent = Date.now();
      stream.write({ sequence: next, timestampS: next / 30, frame: { image: encoded } });
    };
    stream.on('data', (answer) => {
      if (answer.opened) return send();
      if (!answer.tracked) return stream.end();
      streamed.add(Date.now() - sent);
      right += Number(answer.sequence) === next ? 1 : 0;
      answers.stream.add(1);
      next += 1;
      return next > frames ? stream.end() : send();
    });
    stream.on('error', () => { right = -1; });
    stream.on('end', () => {
      check(right, { 'every frame of a stream is answered in its turn': (count) => count === frames });
      ended();
    });
    stream.write({ config: { mode: 'STREAM_MODE_FILE' } });
  });
}

export function sessions() {
  const name = `soak-${exec.vu.iterationInScenario}`;
  for (let sequence = 1; sequence <= 5; sequence += 1) {
    const url = `${__ENV.HTTP}/v1/sessions/${name}/frames?sequence=${sequence}&timestamp_s=${sequence / 10}`;
    told('frames', http.post(url, picture, jpeg), {
      'a frame of a session is answered': (answer) => answer.status === 200 && answer.json('sequence') === sequence,
    });
  }
  check(http.del(`${__ENV.HTTP}/v1/sessions/${name}`), { 'a session is forgotten': (answer) => answer.status === 204 });
}

export function strangers() { // errors leak as well as answers do
  const cut = picture.slice(0, 1 + Math.floor(Math.random() * 200));
  told('refused', http.post(`${__ENV.HTTP}/v1/pose`, cut, jpeg), {
    'a broken picture is refused': (answer) => answer.status === 422,
  });
  told('refused', http.post(`${__ENV.HTTP}/v1/pose?boxes=nonsense`, picture, jpeg), {
    'nonsense is refused': (answer) => answer.status === 422,
  });
  told('refused', http.post(`${__ENV.HTTP}/v1/sessions/-/frames?timestamp_s=x`, picture, jpeg), {
    'a wrong number is refused': (answer) => answer.status === 422,
  });
  sleep(0.2);
}

export function probes() {
  check(http.get(`${__ENV.HTTP}/healthz/ready`), { 'it stays ready': (answer) => answer.status === 200 });
  check(http.get(`${__ENV.HTTP}/metrics`), { 'it can be scraped': (answer) => answer.status === 200 });
  sleep(1);
}
