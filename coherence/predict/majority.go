package predict

// majority is Leap: Al Maruf and Chowdhury, "Effectively Prefetching Remote Memory with Leap" (USENIX ATC
// 2020). The trend is the distance between touches that more than half of the last ones have, sought
// in a window of the past that doubles until it shows one. The number of pages to fetch is taken
// from the hits since the last miss. Where a pager shows no hits, a miss just behind what was
// named says that all of it was hit.
type majority struct {
	distances [history]int64 // a ring
	count     uint64
	run       stream // along the last trend
	hits      int    // since the last miss
	window    int
}

func newMajority(*Options) strategy { return &majority{run: newStream(0, 1, 1)} }

func (m *majority) add(distance int64) {
	m.distances[m.count%history] = distance
	m.count++
}

func (m *majority) miss(page uint64, out *picker) {
	distance := int64(page - m.run.touched)
	if k := m.run.steps(m.run.touched, page); k > 0 && m.run.continues(page, out.options) {
		for range min(k, history) {
			m.add(m.run.stride)
		}
		m.hits = max(m.hits, int(k)-1)
		distance = m.run.stride
	} else {
		m.add(distance)
	}
	trend := m.trend()
	m.window = m.size(out.room, distance == trend)
	m.hits = 0
	if trend == 0 {
		trend = m.run.stride
	}
	m.run = newStream(page, trend, m.window)
	m.run.advance(page, out)
}

// size is the paper's GetPrefetchWindowSize.
func (m *majority) size(most int, follows bool) int {
	size := 0
	switch {
	case m.hits > 0:
		for size = 1; size < m.hits+1; size *= 2 {
		}
	case follows:
		size = 1
	}
	return min(max(size, m.window/2), most)
}

// trend is the paper's FindTrend: 0 if there is none.
func (m *majority) trend() int64 {
	for n := 4; n <= history; n *= 2 {
		if d, ok := m.majorityOf(min(n, int(m.count))); ok {
			return d
		}
	}
	return 0
}

// majorityOf finds what more than half of the last n distances are: Boyer and Moore, "MJRTY: a
// fast majority vote algorithm" (1991).
func (m *majority) majorityOf(n int) (int64, bool) {
	var candidate int64
	votes := 0
	for i := range n {
		switch d := m.back(i); {
		case votes == 0:
			candidate, votes = d, 1
		case d == candidate:
			votes++
		default:
			votes--
		}
	}
	votes = 0
	for i := range n {
		if m.back(i) == candidate {
			votes++
		}
	}
	return candidate, votes > n/2
}

func (m *majority) back(i int) int64 { return m.distances[(m.count-1-uint64(i))%history] }

func (m *majority) hit(page uint64, _ *picker) {
	if k := m.run.steps(m.run.touched, page); m.run.named(page) {
		for range min(k, history) {
			m.add(m.run.stride)
		}
		m.hits += int(k)
		m.run.touched = page
	}
}

func (m *majority) arrived(uint64, []byte) {}
