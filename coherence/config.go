package coherence

import "fmt"

// MaxCaches is how many caches one home serves: a bit each in a directory entry.
const MaxCaches = 256

const (
	maxWays  = 64      // tree-PLRU keeps one word of bits a set
	maxLines = 1 << 26 // of all caches together, a few GiB of our memory
)

// Replacement is a rule that chooses the line to evict from a full set.
type Replacement uint8

// The rules. TreePLRU needs a power of two of ways.
const (
	LRU Replacement = iota
	TreePLRU
	Random // from Config.Seed
)

func (r Replacement) String() string {
	switch r {
	case LRU:
		return "lru"
	case TreePLRU:
		return "plru"
	case Random:
		return "random"
	}
	return fmt.Sprintf("Replacement(%d)", uint8(r))
}

// Config describes the caches and the device. All caches are alike.
type Config struct {
	Caches      int // one a processor, 1 to MaxCaches
	Sets        int // a power of two
	Ways        int // 1 to 64
	Replacement Replacement
	Seed        uint64 // of Random
	// Scan is how many owned lines the device looks at each Tick, to have the
	// tracked ones written back before a harvest asks. Zero: it does not scan.
	Scan int
	// Versions makes home remember the version of each line ever written, which
	// a simulation needs to check values and a shell that holds the data does
	// not. Without it memory reads as version 0.
	Versions bool
}

// Validate returns an error that wraps ErrConfig and names the field.
func (c Config) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	switch {
	case c.Caches < 1 || c.Caches > MaxCaches:
		return bad("%d caches, not 1 to %d", c.Caches, MaxCaches)
	case c.Sets < 1 || c.Sets > maxLines || c.Sets&(c.Sets-1) != 0:
		return bad("%d sets, not a power of two up to %d", c.Sets, maxLines)
	case c.Ways < 1 || c.Ways > maxWays:
		return bad("%d ways, not 1 to %d", c.Ways, maxWays)
	case c.Caches*c.Sets*c.Ways > maxLines:
		return bad("%d caches of %d sets of %d ways are more than %d lines", c.Caches, c.Sets, c.Ways, maxLines)
	case c.Replacement > Random:
		return bad("no replacement rule %d", c.Replacement)
	case c.Replacement == TreePLRU && c.Ways&(c.Ways-1) != 0:
		return bad("%d ways, which tree-PLRU needs to be a power of two", c.Ways)
	case c.Scan < 0:
		return bad("scan of %d lines", c.Scan)
	}
	return nil
}
