// A libp2p peer outside the roster: makes the requests of section 7, and answers hello (7.1).

import { randomBytes } from "node:crypto";

import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { generateKeyPairFromSeed } from "@libp2p/crypto/keys";
import { identify } from "@libp2p/identify";
import { peerIdFromString } from "@libp2p/peer-id";
import { tcp } from "@libp2p/tcp";
import { byteStream } from "@libp2p/utils";
import { multiaddr } from "@multiformats/multiaddr";
import { createLibp2p } from "libp2p";

import { canonical, fromPlain, parse } from "../../vectors/verifier/json.mjs";
import { require } from "../../vectors/verifier/rejected.mjs";
import { checkForm } from "../../vectors/verifier/schema.mjs";

// js-libp2p 3 calls it, and Node.js has it from version 22 on.
Promise.withResolvers ??= () => {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
};

const AGENT = "helium-javascript-client/1";
const REQUEST_LIMIT = 69_632;
const ANSWER_LIMIT = 1_048_576;
const LENGTH_BYTES = 5;
// A page may wait for 60 seconds (7.9).
const ANSWER_MILLISECONDS = 90_000;
// js-libp2p resets a stream with more unread bytes. A blob has at most as many (section 10).
const UNREAD_BYTES = 536_870_912;

/** An answer with a status other than 0 (7.3). */
export class Failed extends Error {
  constructor(status, reason, detail) {
    super(`status ${status}, ${reason}: ${detail}`);
  }
}

export class Peer {
  /** Return a peer of this network, with a secret key of 32 bytes. */
  static async start(network, secret) {
    const host = await createLibp2p({
      privateKey: await generateKeyPairFromSeed("Ed25519", secret),
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: { identify: identify({ agentVersion: AGENT, runOnConnectionOpen: false }) },
    });
    const peer = new Peer(host, network);
    await host.handle("/helium/2/hello", (stream, connection) =>
      peer.answerHello(stream, connection),
    );
    return peer;
  }

  constructor(host, network) {
    this.host = host;
    this.id = host.peerId.toString();
    this.network = network;
    this.instance = randomBytes(16).toString("hex");
    this.instances = new Map(); // of the peers that said hello, by connection
  }

  stop() {
    return this.host.stop();
  }

  /** Connect to a multiaddr that ends in a peer id. Return what identify says of the peer. */
  async connect(address) {
    const connection = await this.host.dial(multiaddr(address));
    const { agentVersion, protocols } = await this.host.services.identify.identify(connection);
    return { peer: connection.remotePeer.toString(), agent: agentVersion, protocols };
  }

  /** Return the answer to a request, a Map; after `blob`, read its bytes by `receive`. */
  async request(peer, name, body, receive = async () => {}) {
    const stream = await this.host.dialProtocol(peerIdFromString(peer), `/helium/2/${name}`);
    try {
      const input = new Input(stream);
      stream.send(frame(body));
      await stream.close(); // for writing: everything is sent (7.3)
      const [status] = await input.take(1);
      const answer = parse(await input.frame(ANSWER_LIMIT), ANSWER_LIMIT);
      if (status !== 0) {
        checkForm("failure", answer);
        throw new Failed(status, answer.get("reason"), answer.get("detail"));
      }
      checkForm(`${name}-answer`, answer);
      await receive(answer, input);
      require(await input.hasEnded(), "malformed", "something follows the answer");
      return answer;
    } catch (error) {
      stream.abort(error);
      throw error;
    }
  }

  /** Return the peers that said hello to this one. */
  greeted() {
    const open = this.host.getConnections().filter(({ id }) => this.instances.has(id));
    return open.map(({ remotePeer }) => remotePeer.toString());
  }

  hello(peer) {
    const { network, instance } = this;
    return this.request(peer, "hello", {
      network: network.id,
      agent: AGENT,
      time: Date.now(),
      instance,
    });
  }

  async answerHello(stream, connection) {
    try {
      const request = parse(await new Input(stream).frame(REQUEST_LIMIT), REQUEST_LIMIT);
      checkForm("hello-request", request);
      const instance = request.get("instance");
      const others = this.host
        .getConnections(connection.remotePeer)
        .map(({ id }) => this.instances.get(id));
      const duplicate = others.some((other) => other !== undefined && other !== instance);
      this.instances.set(connection.id, instance);
      const status = {
        classes: [],
        ready: false,
        reasons: ["this is a client"],
        models: {},
        duplicate,
      };
      const own = {
        network: this.network.id,
        agent: AGENT,
        time: Date.now(),
        instance: this.instance,
      };
      stream.send(Buffer.concat([Buffer.from([0]), frame({ ...own, ...status })]));
      await stream.close();
    } catch (error) {
      stream.abort(error);
    }
  }
}

/** What the other side of a stream sends. */
class Input {
  constructor(stream) {
    this.bytes = byteStream(stream, { maxBufferSize: UNREAD_BYTES });
    this.options = { signal: AbortSignal.timeout(ANSWER_MILLISECONDS) };
  }

  /** Return the next `count` bytes. */
  async take(count) {
    if (count === 0) return Buffer.alloc(0);
    return Buffer.from((await this.bytes.read({ ...this.options, bytes: count })).subarray());
  }

  /** Return the payload of a frame; its length is a minimal varint (7.3). */
  async frame(limit) {
    let size = 0;
    for (let at = 0; ; at++) {
      require(at < LENGTH_BYTES, "malformed", "a length of a frame");
      const [byte] = await this.take(1);
      size += (byte & 0x7f) * 2 ** (7 * at);
      if (byte >= 0x80) continue;
      require(byte !== 0 || at === 0, "malformed", "a length of a frame");
      require(size <= limit, "too-large", "a frame");
      return this.take(size);
    }
  }

  /** Wait for the end. Return false if bytes come instead. */
  async hasEnded() {
    return (await this.bytes.read(this.options)) === null;
  }
}

function frame(body) {
  const payload = canonical(fromPlain(body));
  const length = [];
  let rest = payload.length;
  for (; rest > 0x7f; rest >>= 7) length.push((rest & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([...length, rest]), payload]);
}
