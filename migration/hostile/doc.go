// Package hostile holds the programs that a migration must withstand: a source, a destination and a man in the
// middle that do not keep to the protocol. cmd/internal/hostile is their command; the tests of cmd/fineline set
// them on real VMMs, and those of package migration on fake ones.
//
// # The man in the middle
//
// Middle passes the connections of two honest VMMs on, frame by frame in both directions, and at one frame, which
// a seed chooses, does one deed: flips a bit, drops, repeats, swaps with the next, delays, cuts short, sends the
// frame on another connection, puts one of another type in, replays one that passed before (on an earlier
// connection of an older generation, too), or closes the connection. All else it passes, so that what happens is
// that deed's doing.
//
// A clumsy one does it with the bytes as they are: the checksum and the number of a frame then tell. What the
// two VMMs have must be right in the end, at one of them, or the migration has failed and says so. A Forger
// computes checksum and number anew. Nothing protects content from it but TLS (docs/threat-model.md); it must not
// crash, hang or fill a VMM, and that is all that is asked.
//
// Through TLS there are no frames to be seen. Opaque passes bytes, and flips, drops or repeats some.
//
// # Source and destination
//
// Each is a list of scripts (Sources, Destinations), a script one way to be wrong after a right beginning. They
// claim a process that does not exist on a boot that never was, so that no proof of death is to be had of them.
//
// A destination of a source that is kept is wrong in what it sends back: checkpoints that are torn, miscounted, of pages
// that are none, without end. What the source has of its guest must stay that of a whole checkpoint. A state of rubbish can't
// be told before it is needed; the guest is lost then, and the VMM is not. Keepers are sources that are wrong
// in taking checkpoints, in the name of an honest one.
//
// In a local hand-over a destination has the guest's memory itself, and may do with it what it wants: it must be
// trusted, and what is played is only what it says.
//
// Rejected: random bytes in place of frames (the fuzz targets of migration/wire and migration do that, and get no
// further than the greeting), and a hook in the product's writer (then it would not be the product that is
// attacked).
package hostile
