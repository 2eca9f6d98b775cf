package predict

const (
	zones       = 16
	zoneReach   = 4096 // 16 MiB: farther away it is another zone
	contextBits = 12
	surest      = 3
)

// markov knows which distance followed two distances: a Markov chain on distances, as in Kandiraju
// and Sivasubramaniam, "Going the Distance for TLB Prefetching" (ISCA 2002). A chain on pages would
// never be of use, since after its first miss a page is there. Each of several zones of memory has a history of its
// own (Nesbit, Dhodapkar and Smith, "AC/DC: An Adaptive Data Cache Prefetcher", PACT 2004), so that
// processors that work in different places do not mix; what follows what is common to all.
type markov struct {
	zones [zones]zone
	clock uint64
	table [1 << contextBits]follower
}

// zone is one place where the guest is at work.
type zone struct {
	used   uint64 // the clock at the last use; 0 is a free place
	last   uint64 // the page touched last
	before [2]int64

	// expected are the pages that were foretold from last, in order: if one of them misses, then
	// those before it have been touched.
	expected [mostPicked + 1]uint64
	count    int
}

// follower is the distance that most often follows a context.
type follower struct {
	context  [2]int64
	distance int64 // 0 is a free place
	sure     int8
}

func newMarkov(*Options) strategy { return &markov{} }

func (m *markov) miss(page uint64, out *picker) {
	z, ok := m.expecting(page)
	if !ok {
		z = m.nearest(page)
		m.step(z, page)
	}
	m.foretell(z, out)
}

func (m *markov) hit(page uint64, out *picker) {
	if z, ok := m.expecting(page); ok && z.count == 0 {
		m.foretell(z, out)
	}
}

// expecting finds the zone that has foretold page, and takes it there.
func (m *markov) expecting(page uint64) (*zone, bool) {
	for i := range m.zones {
		z := &m.zones[i]
		for k, p := range z.expected[:z.count] {
			if p != page {
				continue
			}
			for _, p := range z.expected[:k+1] {
				m.step(z, p)
			}
			z.count = copy(z.expected[:], z.expected[k+1:z.count])
			m.use(z)
			return z, true
		}
	}
	return nil, false
}

// nearest returns the zone that page lies in, which may be a new one.
func (m *markov) nearest(page uint64) *zone {
	best, oldest := &m.zones[0], &m.zones[0]
	reach := uint64(zoneReach) + 1
	for i := range m.zones {
		z := &m.zones[i]
		if d := max(page, z.last) - min(page, z.last); z.used != 0 && d < reach {
			best, reach = z, d
		}
		if z.used < oldest.used {
			oldest = z
		}
	}
	if reach > zoneReach {
		best = oldest
		*best = zone{last: page}
	}
	best.count = 0
	m.use(best)
	return best
}

func (m *markov) use(z *zone) {
	m.clock++
	z.used = m.clock
}

// step takes the zone to page and learns from it.
func (m *markov) step(z *zone, page uint64) {
	distance := int64(page - z.last)
	if distance == 0 {
		return
	}
	f := m.place(z.before)
	switch {
	case f.context == z.before && f.distance == distance:
		f.sure = min(f.sure+1, surest)
	case f.sure > 0:
		f.sure--
	default:
		*f = follower{context: z.before, distance: distance}
	}
	z.before = [2]int64{z.before[1], distance}
	z.last = page
}

func (m *markov) place(context [2]int64) *follower {
	return &m.table[hash(hash(uint64(context[0]), 64)+uint64(context[1]), contextBits)]
}

// foretell walks the chain from where the zone is and names the pages on the way.
func (m *markov) foretell(z *zone, out *picker) {
	at, before := z.last, z.before
	for z.count = 0; z.count < len(z.expected); z.count++ {
		f := m.place(before)
		if f.context != before || f.distance == 0 || f.sure == 0 {
			return
		}
		at += uint64(f.distance)
		z.expected[z.count] = at
		if out.room == 0 { // the first that was not named, to know it when it misses
			z.count++
			return
		}
		out.pick(at)
		before = [2]int64{before[1], f.distance}
	}
}

func (m *markov) arrived(uint64, []byte) {}
