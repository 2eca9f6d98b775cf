package predict

const (
	streams      = 16
	history      = 32
	firstWindow  = 4
	provenWindow = 16      // a stride that has come so far needs two misses only to be known elsewhere
	strideReach  = 1 << 16 // the longest stride: 256 MiB
	gapReach     = 4096    // how far apart misses may be that are tried with gaps
	gapMisses    = 6       // the latest of these that are tried with gaps
	longestGap   = 8       // in strides
)

// stride follows several streams at a time, since several processors fault: each at a distance
// of its own. A stream is found when three misses are equally far apart, or two side by side.
//
// Pages between that are there already do not miss. So misses a, b and c are also taken for a stream
// if everything between them at the distance gcd(b-a, c-b) is there: without that, whatever else
// brings pages would hide the stream.
type stride struct {
	streams [streams]stream
	used    [streams]uint64 // the clock at the last use; 0 is a free place
	clock   uint64

	past  [history]uint64 // touches that belonged to no stream, a ring
	count uint64          // of them so far
}

func newStride(*Options) strategy { return &stride{} }

func (s *stride) miss(page uint64, out *picker) {
	if i, ok := s.find(page, func(t *stream) bool { return t.continues(page, out.options) }); ok {
		s.streams[i].grow(out)
		s.streams[i].advance(page, out)
		return
	}
	s.begin(page, out)
}

func (s *stride) hit(page uint64, out *picker) {
	if i, ok := s.find(page, func(t *stream) bool { return t.named(page) }); ok {
		s.streams[i].hit(page, out)
		return
	}
	s.remember(page)
}

func (s *stride) remember(page uint64) {
	s.past[s.count%history] = page
	s.count++
}

// find returns the stream with the longest window of those that page belongs to.
func (s *stride) find(page uint64, belongs func(*stream) bool) (int, bool) {
	best := -1
	for i := range s.streams {
		t := &s.streams[i]
		if s.used[i] != 0 && (best < 0 || t.window > s.streams[best].window) && belongs(t) {
			best = i
		}
	}
	if best >= 0 {
		s.use(best)
	}
	return best, best >= 0
}

func (s *stride) use(i int) {
	s.clock++
	s.used[i] = s.clock
}

// begin starts a stream at page if the past shows one, in the place of the one that rests longest.
func (s *stride) begin(page uint64, out *picker) {
	distance := s.detect(page, out.options)
	s.remember(page)
	if distance == 0 {
		return
	}
	oldest := 0
	for i := range s.used {
		if s.used[i] < s.used[oldest] {
			oldest = i
		}
	}
	s.streams[oldest] = newStream(page, distance, max(firstWindow, s.known(distance)))
	s.use(oldest)
	s.streams[oldest].advance(page, out)
}

// known returns the longest window of the streams with this distance, 0 if there is none.
func (s *stride) known(distance int64) int {
	window := 0
	for i := range s.streams {
		if s.used[i] != 0 && s.streams[i].stride == distance {
			window = max(window, s.streams[i].window)
		}
	}
	return window
}

// back returns the touch before the last i touches.
func (s *stride) back(i int) uint64 { return s.past[(s.count-1-uint64(i))%history] }

// detect returns the stride of a stream that ends in page, or 0.
func (s *stride) detect(page uint64, o *Options) int64 {
	known := int(min(s.count, history))
	for i := range known {
		d := int64(page - s.back(i))
		if d == 1 || d == -1 || i == 0 && d != 0 && s.known(d) >= provenWindow {
			return d
		}
		if d == 0 || d > strideReach || d < -strideReach {
			continue
		}
		before := page - 2*uint64(d)
		for j := i + 1; j < known; j++ {
			if s.back(j) == before {
				return d
			}
		}
	}
	return s.detectGaps(page, known, o)
}

func (s *stride) detectGaps(page uint64, known int, o *Options) int64 {
	var near [gapMisses]uint64
	n := 0
	for i := 0; i < known && n < len(near); i++ {
		if d := int64(page - s.back(i)); d != 0 && -gapReach <= d && d <= gapReach {
			near[n] = s.back(i)
			n++
		}
	}
	for i := range n {
		for j := i + 1; j < n; j++ {
			if d := withGaps(near[j], near[i], page, o); d != 0 {
				return d
			}
		}
	}
	return 0
}

// withGaps returns the distance at which a, b and c lie in one stream, or 0.
func withGaps(a, b, c uint64, o *Options) int64 {
	first, second := int64(b-a), int64(c-b)
	if (first < 0) != (second < 0) || first == 0 {
		return 0
	}
	d := gcd(first, second)
	if first/d > longestGap || second/d > longestGap {
		return 0
	}
	if !o.present(a+uint64(d), d, first/d-1, 0) || !o.present(b+uint64(d), d, second/d-1, 0) {
		return 0
	}
	return d
}

// gcd returns the greatest common divisor of two numbers of one sign, with that sign.
func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (s *stride) arrived(uint64, []byte) {}
