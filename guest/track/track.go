package track

import (
	"errors"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/follow"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// What sessions speak of; package follow describes them.
type (
	Range  = follow.Range
	Page   = follow.Page
	Report = follow.Report
	Flags  = follow.Flags
)

// Flags of a Page.
const (
	Inexact = follow.Inexact
	Moved   = follow.Moved
	New     = follow.New
	Gone    = follow.Gone
	Counted = follow.Counted
)

// LineBytes and PageBytes are the sizes of a line and of a page.
const (
	LineBytes = follow.LineBytes
	PageBytes = follow.PageBytes
)

// Mode is how the device sees lines; the values are its ABI's.
type Mode uint8

// The modes. A machine offers Diff always, the others where its memory is set up for them.
const (
	Diff   Mode = abi.ModeDiff   // lines whose bytes changed
	Stores Mode = abi.ModeStores // lines stored to
	Homed  Mode = abi.ModeHomed  // lines stored to, through modelled caches
)

// Mappings chooses memory that a session follows by itself, looking for new mappings at each harvest.
type Mappings uint8

// The choices. Windows of devices are never followed, nor are mappings of more than MaxMappingBytes.
const (
	FollowNothing  Mappings = iota // what Add lists
	FollowPrivate                  // anonymous memory: heap, stacks, private mappings
	FollowWritable                 // everything that the process can write to, shared memory too
)

// MaxMappingBytes bounds a mapping that is followed by itself: what is larger is address space that a
// runtime reserves and hardly uses.
const MaxMappingBytes = 64 << 30

// Options are those of a session.
type Options struct {
	Mode       Mode
	CountBytes bool // mode Diff: count the bytes that changed
	Follow     Mappings
	// Check is called when the process's address space has been opened and before it is looked at. The
	// address space stays the same one, whatever becomes of the process's number. Not with a Client.
	Check func() error
}

// Errors. Others are the device's (package driver) and the system's.
var (
	ErrClosed     = errors.New("the session is closed")
	ErrState      = errors.New("the session is not in the state for this")
	ErrBadRange   = follow.ErrBadRange
	ErrTooLarge   = follow.ErrTooLarge
	ErrNotMapped  = errors.New("not memory that the process can write to")
	ErrGone       = procmem.ErrGone
	ErrPermission = errors.New("not permitted")
	ErrLimit      = errors.New("a limit of the daemon is reached")
	ErrNoSpace    = error(driver.ErrNoSpace)
)

// System opens sessions: *Device or *Client.
type System interface {
	// Self tracks the calling process.
	Self(Options) (Session, error)
	// Process tracks another one, or the own without locking memory.
	Process(pid int, o Options) (Session, error)
	// Close ends all sessions.
	Close() error
}

// Session tracks memory of one process.
type Session interface {
	// Add lists ranges, before or after Start.
	Add(ranges ...Range) error
	// Remove takes listed pages off the list; what was written to them and not harvested is dropped.
	Remove(ranges ...Range) error
	// Start begins: each write from its return on is in a later report.
	Start() error
	// Harvest returns what was written since the last harvest, or Start.
	Harvest() (*Report, error)
	// Stop looks a last time and ends the tracking. One more Harvest returns what it found. Start begins anew.
	Stop() error
	// Close ends the session. It may be called twice.
	Close() error
}
