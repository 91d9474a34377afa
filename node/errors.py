"""The exceptions of the project. Each is named for what happened, without a suffix.

`node.cli.session.EXIT_CODES` maps those that reach a user to exit codes.

HeliumError                       schemas.errors: base of all
├─ SchemaViolation                schemas.errors: a document does not fit its schema
├─ Rejected                       protocol.errors: a peer's message breaks a rule (Rejection)
│  └─ InvalidArgument             node.client.arguments: a caller's argument has no such form
├─ Abstained                      executor.errors: this machine cannot execute the task
├─ TaskFailed                     executor.errors: the task fails on every machine alike
├─ RunAlone                       executor.errors: the job did not end beside others
├─ TokensDiffer                   executor.errors: the tokens to replay are not the task's
├─ ModelRefused                   executor.errors: the model's files may not be loaded
├─ ProfileViolated                executor.errors: this process does not follow the profile
├─ EngineUnavailable              executor.errors: the engine's library is missing or unusable
├─ WorkerDied                     executor.worker.process: the worker process ended
├─ DurationUnknown                protocol.model_limits: tokens do not give a length
├─ Busy                           node.errors: a limit of this node is reached; retry later
├─ TaskNotServed                  node.admission.task_policy: this node does not accept it
├─ InvalidSetting                 node.config.settings: a flag, a variable or a TOML value
├─ InvalidEntry                   node.config.parsers: one entry of a list
├─ UnusableKeyFile                node.config.keystore: missing, open to others or encrypted
├─ UnusableNetwork                node.app: the network document
├─ UnusableDatabase               node.storage.errors: of another network, newer or damaged
├─ BlobRefused                    node.storage.errors: wrong size or hash
├─ DiskQuotaExceeded              node.storage.errors: no room for another blob
├─ StreamClosed                   node.transport.interface: the peer closed or reset it
├─ NegotiationFailed              node.transport.libp2p.negotiation: no common protocol
├─ WindowExceeded                 node.transport.libp2p.muxing.yamux: more unread bytes than allowed
├─ PeerBanned                     node.transport.libp2p.gossipsub: too many reports
├─ MalformedFrame                 node.rpc.framing: bytes that are not a frame
├─ FrameTooLarge                  node.rpc.framing: a length over the limit of its frame
├─ RequestRefused                 node.rpc.client: the peer answered with an error status
├─ ProtocolViolation              node.rpc.codec: the peer's answer breaks the protocol
│  └─ WrongBytes                  node.sync.blob_download: a chunk has another hash
├─ BlobUnavailable                node.sync.blob_download: no peer served the blob
├─ KeyInUse                       node.sync.vote_recovery: another process uses the key
├─ NoAgreement, UnknownTask       node.sync.task_tracker: how a followed task ended
├─ NoNodeReachable, TaskRejected  node.client.nodes: no node accepted the task
├─ WithdrawalNotShown             node.client.withdrawal: too few nodes show a withdrawal
├─ GenerationFailed               node.client.submission: the members agree on an error
├─ AudioMismatch                  node.client.result: a certificate does not cover the audio
└─ Failure                        node.cli.exit_codes: a command ends with this exit code
"""

from schemas.errors import HeliumError

__all__ = ["Busy", "HeliumError"]


class Busy(HeliumError):
    """A limit of this node is reached. The request was valid; the peer may retry later."""
