package coherence

import (
	"fmt"
	"slices"
	"strings"
)

// Op is what a processor asks of its cache.
type Op uint8

// The accesses of a processor.
const (
	Load Op = 1 + iota
	Store
)

func (o Op) String() string {
	switch o {
	case Load:
		return "load"
	case Store:
		return "store"
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// EffectKind says what an Effect tells. Zero is none.
type EffectKind uint8

// What the core tells its shell. In brackets: the fields that are set beside Kind.
const (
	// AccessDone: a processor's access was performed [Node, Op, Line, Version, Hit].
	AccessDone EffectKind = 1 + iota
	// WriteBack: written data of a line reached home, and memory holds it from
	// now on [Node, Line, Version, Via: PutM or SnpResp]. The shell that keeps
	// an undo log saves the old data when it sees this.
	WriteBack
	// ReadDone: an IO agent's read was performed [Line, Version].
	ReadDone
	// WriteDone: an IO agent's write was performed [Line, Version].
	WriteDone
	// HarvestDone: the lines of a harvest [Region, Pages, More].
	HarvestDone
	// StopDone: the region is not tracked any more [Region].
	StopDone
	// FlushDone: no cache holds a written line of those that one held when Flush was called.
	FlushDone
	// Aborted: the region was removed during a harvest or stop, which ends so [Region].
	Aborted
	// Fetch: somebody waits for a line that is absent; the shell asks for it [Line].
	Fetch
	// PageDone: no line of a page is absent any more [Line: the page's first].
	PageDone
)

// Effect is one thing that happened, as the shell must know it.
type Effect struct {
	Kind    EffectKind
	Op      Op
	Via     Kind
	Hit     bool // the cache had what the access needed
	More    bool // the harvest left lines pending, because of its limit
	Node    Node
	Line    Line
	Version uint64 // of the line; see Config.Versions
	Region  RegionID
	Pages   []PageMask // rising pages; belongs to the receiver
}

func (e Effect) String() string {
	switch e.Kind {
	case AccessDone:
		hit := "miss"
		if e.Hit {
			hit = "hit"
		}
		return fmt.Sprintf("%v %v %d %s v%d", e.Node, e.Op, e.Line, hit, e.Version)
	case WriteBack:
		return fmt.Sprintf("write-back %d v%d from %v by %v", e.Line, e.Version, e.Node, e.Via)
	case ReadDone:
		return fmt.Sprintf("ioread %d v%d", e.Line, e.Version)
	case WriteDone:
		return fmt.Sprintf("iowrite %d v%d", e.Line, e.Version)
	case HarvestDone:
		s := fmt.Sprintf("harvest %d: %s", e.Region, formatLines(e.Pages))
		if e.More {
			s += " and more"
		}
		return s
	case StopDone:
		return fmt.Sprintf("stopped %d", e.Region)
	case FlushDone:
		return "flushed"
	case Aborted:
		return fmt.Sprintf("aborted %d", e.Region)
	case Fetch:
		return fmt.Sprintf("fetch %d", e.Line)
	case PageDone:
		return fmt.Sprintf("page done %d", e.Line.Page())
	}
	return fmt.Sprintf("EffectKind(%d)", uint8(e.Kind))
}

func formatLines(pages []PageMask) string {
	if len(pages) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(slices.Collect(Lines(pages))), "[]")
}
