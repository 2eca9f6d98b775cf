package predict

const (
	// reach bounds how far a stream looks past pages that are there already, in windows.
	reach = 4
	// slack is how many points of a stream may be skipped by the guest.
	slack = 1
)

// stream is pages at one distance from each other that the guest touches in order. What it has
// named lies between touched and next.
//
// A page that is there does not miss, so a miss at the first page behind what was named says
// that all of that was used, and one within says that it came too late: both ask for more.
type stream struct {
	touched uint64 // the last page that the guest is known to have touched
	next    uint64 // the first point after it that was not named yet; beyond RAM it may wrap
	stride  int64  // in pages, not 0
	window  int    // how many points to run ahead
}

func newStream(page uint64, stride int64, window int) stream {
	return stream{touched: page, next: page + uint64(stride), stride: stride, window: window}
}

// steps returns how many strides page lies behind from; 0 if it is none of the stream's points, or before.
func (s *stream) steps(from, page uint64) int64 {
	d := int64(page - from)
	if d%s.stride != 0 || d/s.stride < 0 {
		return 0
	}
	return d / s.stride
}

// named says whether page is among those named and not known to be touched.
func (s *stream) named(page uint64) bool {
	k := s.steps(s.touched, page)
	return k > 0 && k < s.steps(s.touched, s.next)
}

// continues says whether a miss of page is the stream's next step: what lies between must have been
// named, or be there for another reason.
func (s *stream) continues(page uint64, o *Options) bool {
	if s.named(page) {
		return true
	}
	if page != s.next && s.steps(s.next, page) == 0 {
		return false
	}
	k := s.steps(s.next, page)
	return k <= slack || k <= int64(reach*s.window) && o.present(s.next, s.stride, k, slack)
}

// present says whether of n points from first at most so many may miss.
func (o *Options) present(first uint64, stride, n int64, missing int) bool {
	for ; n > 0 && missing >= 0; n-- {
		if o.wanted(first) {
			missing--
		}
		first += uint64(stride)
	}
	return missing >= 0
}

// advance moves the stream to page and names what is wanted up to a window ahead. It looks at what
// was named before once more, since a caller need not have asked for all of it.
func (s *stream) advance(page uint64, out *picker) {
	at := page + uint64(s.stride)
	end := at
	if s.named(page) {
		end = s.next
	}
	s.touched = page
	ahead := 0
	for left := reach * s.window; left > 0 && ahead < s.window && out.room > 0; left-- {
		room := out.room
		out.pick(at)
		if out.room < room || s.steps(at, end) > 0 {
			ahead++
		}
		at += uint64(s.stride)
	}
	s.next = at
	if s.steps(at, end) > 0 {
		s.next = end
	}
}

// grow doubles the window after the guest has followed the stream, to at most two requests of the
// size that the caller makes now: one on the way while the guest uses the other.
func (s *stream) grow(out *picker) { s.window = max(s.window, min(2*s.window, 2*out.room)) }

// hit advances when half of the window is used up, so that requests are not for single pages.
func (s *stream) hit(page uint64, out *picker) {
	if s.steps(page, s.next)-1 > int64(s.window/2) {
		s.touched = page
		return
	}
	s.grow(out)
	s.advance(page, out)
}
