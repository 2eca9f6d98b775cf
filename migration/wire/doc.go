// Package wire is the migration protocol: frames, messages and page records. It knows no machine, no
// journal and no policy; package migration decides, this package reads and writes.
//
// # Sequence
//
//	source                                          destination
//	  HELLO {migrate, build, machine, generation,
//	         process, journal}             ------->
//	                                       <-------   HELLO | REFUSE {reason}
//	  DESCRIPTION (opaque bytes)           ------->   builds the machine, compares
//	                                       <-------   ACCEPT | REFUSE {reason}
//	  PAGES ...                            ------->   stores them                   \
//	  ROUND_END {round, pages, zero_pages} ------->                                  | once a round
//	                                       <-------   ROUND_ACK                     /
//	  (the guest is paused)
//	  PAGES ...                            ------->
//	  ROUND_END {..., paused}              ------->   no ROUND_ACK: nothing waits for it
//	  STATE (opaque bytes)                 ------->   restores
//	                                       <-------   READY
//	  COMMIT                               ------->   journals Owner; runs
//	                                       <-------   RUNNING {monotonic_ns}
//	  DONE                                 ------->
//
// Before COMMIT either side may send ABORT {reason} at any time. The destination answers ABORT with
// VERDICT {discarded}; then both close. After a lost connection the source opens another one for the
// same hand-over:
//
//	HELLO {resolve, ...}                 ------->
//	RESOLVE                              ------->
//	                                     <-------   HELLO
//	                                     <-------   VERDICT {owner | ready | discarded | unknown}
//	on ready: COMMIT (then as above) or ABORT
//
// # States of the receiver
//
//	state          takes                        leaves to
//	greeting       HELLO                        describing; resolving if the purpose is resolve
//	describing     DESCRIPTION, ABORT           receiving (ACCEPT sent), or closed (REFUSE sent)
//	receiving      PAGES, ROUND_END, ABORT      receiving; finishing after a paused ROUND_END
//	finishing      PAGES, ROUND_END, STATE,     finishing; ready after STATE (READY sent), which comes
//	               ABORT                        only when no round is open
//	ready          COMMIT, ABORT                owner; or ready without a connection
//	owner          DONE                         closed
//	resolving      RESOLVE                      ready again, or closed
//
// A frame that the state does not take is an error before its payload is read. Page records ascend
// within a round and ROUND_END repeats their count, so repeated, reordered and lost records are errors
// too, and the work that a frame can cause is bounded by the size of the guest.
//
// # Frame
//
//	offset  size
//	     0     4  magic "FLMG"
//	     4     2  protocol version
//	     6     2  type, 0 is invalid
//	     8     4  payload size in bytes; each type has a cap, checked before anything is allocated
//	    12     4  sequence number, from 0 on each connection and direction
//	    16     4  CRC-32C of the payload followed by bytes 0 to 15
//	    20        payload
//
// Numbers are little endian. The checksum takes the payload first, so that it can be computed where the
// payload is gathered, before the sequence number is known. It guards against our own bugs and a bad
// link, not against malice: a peer is trusted to be what its host's operator started, and nothing else;
// every byte of it is checked at its use.
//
// # Version rule
//
// The first eight bytes of a frame never change. A peer of another protocol version is refused at its
// first frame by both sides, with both versions named. Any change of a frame, message or record raises
// Version; the build's version is informative, and whether a saved state can be restored is decided by
// the machine's description. Zero is invalid in every enumeration.
//
// # Rejected
//
// One acknowledgement a request (Cloud Hypervisor): a round trip a batch. No acknowledgement at all
// (QEMU without return path): the source would take the socket's buffer for the link's bandwidth and
// then stop the guest behind megabytes that were never counted. One acknowledgement a round costs one
// round trip and ends both. gob, protobuf: page records are 16 bytes of header and raw pages, and the
// few control messages are JSON, which any tool shows.
package wire
