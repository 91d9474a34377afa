"""The exceptions of the project. Each is named for what happened, without a suffix.

HeliumError                       schemas.errors: base of all
├─ SchemaViolation                schemas.errors: a document does not fit its schema
├─ Rejected                       protocol.errors: a peer's message breaks a rule (Rejection)
├─ Abstained                      executor.errors: this machine cannot execute the task
├─ TaskFailed                     executor.errors: every member meets this failure alike
├─ ModelRefused                   executor.errors: the model's files may not be loaded
├─ ProfileViolated                executor.errors: this process does not compute by the profile
├─ WorkerDied                     executor.worker.process: the worker process ended
├─ DurationUnknown                protocol.model_limits: tokens do not give a length
├─ Busy                           node.errors: a limit of this node is reached; retry later
├─ TaskNotServed                  node.admission.task_policy: this node's policy, not a fault
├─ InvalidSetting                 node.config.settings
├─ UnusableKeyFile                node.config.keystore
├─ UnusableNetwork                node.app: the network document
├─ UnusableDatabase               node.storage.errors
├─ BlobRefused                    node.storage.errors: wrong size or hash
├─ DiskQuotaExceeded              node.storage.errors: no room for another blob
├─ StreamClosed                   node.transport.interface: the peer closed or reset it
├─ PeerBanned                     node.transport.libp2p.gossipsub
├─ MalformedFrame                 node.rpc.framing: bytes that are no frame
├─ RequestRefused                 node.rpc.client: the peer answered with an error status
├─ ProtocolViolation              node.rpc.codec: the peer's answer breaks the protocol
│  └─ WrongBytes                  node.sync.blob_download: a chunk has another hash
├─ BlobUnavailable                node.sync.blob_download: no peer served the blob
├─ NoAgreement, UnknownTask       node.sync.task_tracker: how a followed task ended
├─ NoNodeReachable, TaskRejected  node.client.submission
├─ GenerationFailed               node.client.submission: the members agree on an error
├─ AudioMismatch                  node.client.result: audio that a certificate does not cover
└─ Failure                        node.cli.exit_codes: one line and an exit code
"""

from schemas.errors import HeliumError

__all__ = ["Busy", "HeliumError"]


class Busy(HeliumError):
    """A limit of this node is reached. The request was valid; the peer may retry later."""
