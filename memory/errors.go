package memory

import "errors"

// Classes of error that a caller can act on; all errors of this package that
// fit one wrap it.
var (
	// ErrOutOfRange: an address, or a part of a range, is not guest RAM. Usually
	// the guest's mistake; answer it as hardware would.
	ErrOutOfRange = errors.New("guest address is not RAM")
	// ErrMisaligned: an ordered access is not naturally aligned, or a page
	// address is not a multiple of PageSize.
	ErrMisaligned = errors.New("guest address is not aligned")
	// ErrClosed: the Guest was closed.
	ErrClosed = errors.New("guest memory is closed")
	// ErrTracking: the Tracker is already active, or another one with another source.
	ErrTracking = errors.New("dirty tracking is already active")
	// ErrNotTracking: Collect on a Tracker that is not started.
	ErrNotTracking = errors.New("dirty tracking is not active")
	// ErrBadLayout: the regions asked for cannot be RAM of any host.
	ErrBadLayout = errors.New("bad guest memory")
	// ErrBeyondHost: more RAM was asked for than this host has.
	ErrBeyondHost = errors.New("guest memory is larger than the host's")
	// ErrBadFiles: descriptors that another process gave are not the RAM that was agreed on.
	ErrBadFiles = errors.New("bad memory files")
	// ErrNoHugePages: huge pages were asked for and the host has none to give.
	ErrNoHugePages = errors.New("no huge pages")
	// ErrNoUserfaults: this host does not let the process serve missing pages.
	ErrNoUserfaults = errors.New("missing guest memory cannot be served")
	// ErrHugePages: pages of the host's pool cannot be missing one by one.
	ErrHugePages = errors.New("guest memory in reserved huge pages cannot be missing")
	// ErrDemand: there is a Demand already.
	ErrDemand = errors.New("guest memory is being fetched already")
	// ErrMissing: the page was never brought, and will not be.
	ErrMissing = errors.New("guest memory is missing")
	// ErrComplete: no page is absent any more.
	ErrComplete = errors.New("no guest memory is missing")

	errDemandOver = errors.New("the fetching of guest memory has ended")
)
