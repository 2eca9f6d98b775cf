// Package journal is the durable memory of who may run a guest: an append-only file of
// (machine, generation, side, phase) records, one JSON line each, with a checksum.
//
// Two processes read it besides its owner: the peer of a migration, once it has proved that the owner
// is dead, and a human after a host crash. Both need the same two properties. A record is either wholly
// there or not there: the checksum covers the exact bytes of the record and the line ends in a newline,
// so that a torn tail is recognised and dropped. And the order on disk is the order of the calls.
//
// Append makes the record durable before it returns. Note only writes it, which every process of this
// boot sees at once and the next Append (or Sync) makes durable; it exists because an fsync costs
// milliseconds on a disk and the guest is stopped meanwhile. Which record needs which is part of the
// ownership law, in package migration.
//
// A write that fails, on a full disk, leaves at most a part of a record: without its newline, so that no reader takes
// it for one. It is truncated away, durably, before the next record is written; so a disk that has room again is used
// again, and no record appears that its writer was told is not there. If that fails the journal takes no record any more.
//
// The file is locked by its owner for as long as it is open, so two processes can never interleave,
// and whoever holds the lock knows that every earlier owner is gone.
//
// Rejected: a database (one file of a few hundred bytes a migration needs no index), and a record
// rewritten in place (a crash in the middle of it would lose the previous phase as well).
package journal
