// Package wire is the migration protocol: frames, messages and page records. It knows no machine, no
// journal and no policy; package migration decides, this package reads and writes.
//
// # Sequence
//
//	source                                          destination
//	  HELLO {migrate, build, machine, generation,
//	         process, journal, mode, streams} ---->
//	                                       <-------   HELLO | REFUSE {reason}
//	  DESCRIPTION (opaque bytes)           ------->   builds the machine, compares
//	                                       <-------   ACCEPT | REFUSE {reason}
//	  (on each of the streams: HELLO {stream, ..., its number},
//	   answered by HELLO or REFUSE)
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
// A HELLO has one of five purposes: migrate, and for a hand-over that was accepted: stream (one more connection), resolve
// (what became of it), recover (a post-copy whose connections were lost), reverse (checkpoints come back over it). The source opens all connections, and the destination repeats the
// purpose in its answer. The mode is precopy, postcopy, hybrid or local; streams is how many connections follow ACCEPT, and of the two modes that
// move memory after the guest the last one is the fault stream.
//
// In a round each page is on one connection, whichever. Each connection has its own ROUND_END, with its own counts, and the main one's is the
// last; ROUND_ACK says that all are stored.
//
// With the mode "local", between two processes of one host over a Unix socket, the guest's memory is handed
// over as the files that it is in, and no page is sent:
//
//	DESCRIPTION                          ------->
//	MEMORY (no payload; the descriptors,
//	one a region, are attached to it as
//	ancillary data, SCM_RIGHTS)          ------->   builds the machine on them
//	                                     <-------   ACCEPT | REFUSE {reason}
//	(the guest is paused)
//	STATE                                ------->   and on as above
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
//	describing     DESCRIPTION, ABORT; when     receiving (ACCEPT sent), or closed (REFUSE sent)
//	               local, then MEMORY, ABORT
//	receiving      PAGES, ROUND_END, ABORT      receiving; finishing after a paused ROUND_END
//	               when local: STATE, ABORT     ready after STATE
//	finishing      PAGES, ROUND_END, STATE,     finishing; ready after STATE (READY sent), which comes
//	               ABORT                        only when no round is open
//	ready          COMMIT, ABORT                owner; or ready without a connection
//	owner          DONE                         closed
//	resolving      RESOLVE                      ready again, or closed
//	stream         PAGES, ROUND_END             as long as the main connection receives or finishes; nothing while it lacks; then paging
//
// With the modes postcopy and hybrid:
//
//	receiving      also ABSENT                  lacking
//	lacking        STATE, ABORT                 ready
//	owner          DONE                         paging on its streams; COMPLETE sent when nothing is absent, then DONE is awaited
//	paging         PAGES, ROUND_END             stalled when a connection is lost
//	stalled        HELLO recover on a new       paging: HELLO and ABSENT (what is still absent) sent, streams opened again
//	               connection
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
// # Records
//
// The payload of PAGES is records, each a header of 16 bytes and what its kind says:
//
//	offset  size
//	     0     8  number of the first page (guest-physical address / 4096), below 2^52
//	     8     1  kind: 1 data, 2 zero, 3 lines
//	     9     3  lines: size of the entries in bytes; else zero
//	    12     4  count of pages, at least 1
//	    16        data: count pages of 4096 bytes; zero: nothing; lines: count entries
//
// The pages of data and zero are neighbours. Those of lines ascend, and each has an entry:
//
//	uvarint   gap: the page's number less that of the entry before; 0 for the first, else at least 1
//	1 byte    head
//	          0x00-0x3f  one line, of that index; its delta follows
//	          0x40-0x7f  one line, of the index head-0x40; its 64 bytes follow
//	          0x80       8 bytes of mask follow, and the deltas of its lines in ascending order
//	          0x81       8 bytes of mask follow, and its lines' bytes in ascending order
//
// A line is 64 bytes, and bit i of a mask is line i of the page. A delta says what of a line has changed
// since what the destination has:
//
//	1 byte    words: bit i is the line's word i, of 8 bytes; may be 0
//	for each of them, in ascending order
//	1 byte    bytes: bit j is the word's byte j; not 0
//	          the new bytes, in ascending order
//
// A mask without lines, another head, a body that ends early or late is a protocol error, and is found
// before a byte of its page is written. A delta holds new bytes and not differences, so that lines that
// are stored twice do no harm. Lines of all 64 lines' bytes say a page without its past.
//
// PAGES_ZSTD is PAGES whose payload is zstd (RFC 8878), and expands to at most 1 MiB of records. The
// sender compares sizes a frame at a time.
//
// # Post-copy
//
//	source                                          destination
//	  (the guest is paused)
//	  PAGES ... ROUND_END {..., paused}    ------->   the few that restoring the state looks for, if any
//	  ABSENT                               ------->   knows what it lacks
//	  STATE ... COMMIT                     ------->   as above; from RUNNING on it runs the guest
//	                                       <-------   RUNNING
//	  the fault stream:
//	                                       <-------   REQUEST, at each page that the guest waits for
//	  PAGES, of the missed page alone      ------->   stores what is still absent
//	  PAGES, of the predicted ones         ------->
//	                                       <-------   or REQUEST_LINE, at each line that it waits for
//	  LINE                                 ------->   stores it if it is still absent
//	  PAGES, of its page                   ------->
//	  the background streams:
//	  PAGES ... ROUND_END                  ------->   stores what is still absent
//	  and in the end:
//	                                       <-------   COMPLETE: nothing is absent
//	  DONE                                 ------->
//
// ABSENT is a set of pages as ascending runs, which do not touch: uvarint of the pages between a run and
// the one before it (or page 0), uvarint of the run's pages, at least 1. A bitmap would take 32 KiB for
// each GiB whatever is in it; runs take at most 8 times that, and a few bytes for what is usual.
//
// REQUEST is 1 to 64 page numbers of 8 bytes: the missed page, then those that will be missed next, best
// first. COMPLETE says what the faults were like, and whether the guest has ended before all its memory came.
//
// When a connection is lost both close all of them, and the source begins anew:
//
//	HELLO {recover, ...}                 ------->
//	                                     <-------   HELLO, or REFUSE
//	                                     <-------   ABSENT: what is still absent
//	(the streams as after ACCEPT)
//	and on as above; with nothing absent, COMPLETE follows at once
//
// REQUEST_LINE is 8 bytes: the number of a line, which is its guest-physical address divided by 64. LINE is such a number
// and the line's 64 bytes, as they are: 92 bytes with the frame's header. A line is not a record of PAGES, since such a
// record says all of what a page lacks, and this does not. The page comes behind by the rules for predicted pages,
// its line once more in it.
//
// # Reverse stream
//
// With checkpoint_ms in its HELLO the source keeps the guest as it was at the switch, and the destination sends
// back what changes. After ACCEPT the source opens one more connection, with HELLO purpose reverse, and another one
// whenever that is lost:
//
//	source                                          destination
//	  HELLO {reverse, ...}                 ------->
//	                                       <-------   HELLO
//	  (the guest has moved)
//	  CHECKPOINT_ACK {number}              ------->   of the newest that the source holds; 0: none
//	                                       <-------   CHECKPOINT {number}             \
//	                                       <-------   PAGES ...                        | one at a time
//	                                       <-------   STATE (opaque bytes)             |
//	                                       <-------   CHECKPOINT_END {number, counts}  |
//	  CHECKPOINT_ACK {number}              ------->                                   /
//	  DONE                                 ------->   no more: the source has let go of its guest
//	                                       <-------   ENDED: the guest has ended, or moves on
//	  DONE                                 ------->
//
// The lines of PAGES are against what the source has: its own memory with all checkpoints up to the last one that
// it has acknowledged. A page is in a checkpoint once, in any order; numbers grow. CHECKPOINT_END also says how long after its checkpoint
// began the next one does, or later: silence until then is no lost connection. DONE and ENDED may come at
// any time but within another frame.
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
// round trip and ends both. gob, protobuf: records are bytes that must cost nothing to read, and the
// few control messages are JSON, which any tool shows.
//
// XBZRLE (QEMU): the lengths of equal and of changed runs, over the whole page. Each end of a run is a
// branch that nobody predicts, and the page is searched though the mask of its changed lines is known.
// Masks of words and bytes need no branch for each (delta.go: 16 ns for a line with one changed word, 45
// ns for one full of them, on a Zen 4). Differences instead of new bytes: smaller only under zstd, and
// wrong when applied twice. zstd a page at a time: 20 us each, and blind to what neighbours have in
// common. One zstd frame for all batches of a stream: its window lies on both sides, and no batch can be
// left uncompressed, or read alone.
package wire
