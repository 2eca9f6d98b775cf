// Package api is the control API: HTTP and JSON on a Unix socket, and its client.
//
// Paths, verbs, states and error bodies are Firecracker's where it has the thing, because its
// official Go client then drives this VMM unchanged and because it is the smallest API in use.
// Success is 204 without a body for PUT and PATCH and 200 with JSON for GET; every failure is
// 400 with {"fault_message": "..."}, and beside it the result of a migration that was refused.
// What Firecracker lacks is under /fineline/v1/, a migration with Cloud Hypervisor's names.
//
//	GET   /                                who and how: id, state, phase, version
//	GET   /version, /vm/config
//	GET, PUT, PATCH /machine-config        before the start only
//	GET, PUT /boot-source                  before the start only
//	PUT   /logger                          before the start only
//	PUT   /actions                         {"action_type": "InstanceStart"}
//	PATCH /vm                              {"state": "Paused"} or {"state": "Resumed"}
//	PUT   /fineline/v1/stop                end the VMM
//	PUT   /fineline/v1/migration           start one: MigrationRequest
//	GET   /fineline/v1/migration           how the latest one is, in or out
//	PUT   /fineline/v1/migration/recover   RecoverRequest: a post-copy that lost its connection
//	GET   /fineline/v1/migration/events    JSON lines of MigrationEvent, the last with final true
//	PUT   /fineline/v1/migration/cancel    204 when the guest is back at the source
//	PUT   /fineline/v1/migration/resolve   {"decision": "keep"} or {"decision": "discard"}
//	POST  /fineline/v1/track               TrackRequest; JSON lines of TrackEvent, the last with final true
//
// # Layers
//
// Lifecycle is the pure state machine. Session serialises clients in front of a Controller,
// which does the work and reports what happens by itself (a guest powers off, a migration
// ends). Server and Client speak HTTP. The command line's own start and stop go through the
// Session too, so there is one door. A migration's progress and result are JSON that this
// package does not read: vmm and migration do not know each other. Windows of written lines are types of
// this package; who makes them from a tracker is the Controller.
//
// # Invariants
//
//   - The Controller is asked for one change at a time, and only in a phase that allows it. Two
//     clients at once queue; the second meets the state that the first has made, and gets its
//     conflict in words. Only a cancel passes the queue.
//   - A change that has begun runs to its end though its client hangs up.
//   - A reader of the progress stream never holds the migration up: it is shown the latest
//     picture, and the result is kept for whoever comes late.
//   - A reader of windows of lines holds up nothing but the goroutine of its own request: while a line
//     is not taken no new one is made, the next window is longer, and after 10 s the stream is cut. What it
//     cost (a context, baselines) ends with the request, whoever ended it.
//   - A request costs bounded memory and time: 64 KiB of body, 16 KiB of headers, deadlines on
//     every read and write. Bodies are read more strictly than encoding/json does.
//
// # Rejected
//
// A lock held across Controller calls without a queue (a client can't give up waiting); one buffered channel a reader (it blocks or drops
// the result); go-openapi models and generated servers (8 MB and 18 modules for a dozen
// routes); 404, 405, 409 and 413 (right in HTTP, but Firecracker's clients expect 400).
package api
