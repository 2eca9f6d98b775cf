package coherence

// Stats counts what happened since New, or since New of the system that State
// was taken from.
type Stats struct {
	Loads, Stores uint64 // performed
	Hits, Misses  uint64 // their sum is Loads + Stores; an upgrade is a miss
	Upgrades      uint64 // stores to a Shared line, which had to ask home
	LostUpgrades  uint64 // of them, those whose copy a snoop took meanwhile
	// SilentUpgrades: first stores to an Exclusive line, which home did not see.
	SilentUpgrades uint64
	Evictions      uint64 // lines that a cache gave up of itself, clean or written

	WriteBacksByEviction uint64
	WriteBacksBySnoop    uint64
	StalePuts            uint64 // evictions that a snoop had overtaken
	Snoops               uint64 // sent
	Invalidations        uint64 // copies that a snoop ended
	Downgrades           uint64 // copies that a snoop made Shared
	Scans                uint64 // snoops that Tick began
	IOReads, IOWrites    uint64
	Harvests             uint64
	HarvestedLines       uint64

	Fetches      uint64 // lines asked for because somebody waited, those asked for again included
	ArrivedLines uint64 // absent lines that came
	LateLines    uint64 // lines that came and were here
}
