package predict

// sequential takes each miss for the begin of a run of pages and knows one run. Its window
// doubles while the guest follows, and halves when it goes elsewhere: what was fetched then
// counts as waste.
type sequential struct{ run stream }

func newSequential(*Options) strategy { return &sequential{run: newStream(0, 1, 1)} }

func (s *sequential) miss(page uint64, out *picker) {
	if s.run.continues(page, out.options) {
		s.run.grow(out)
	} else {
		s.run = newStream(page, 1, max(1, s.run.window/2))
	}
	s.run.advance(page, out)
}

func (s *sequential) hit(page uint64, out *picker) {
	if s.run.named(page) {
		s.run.hit(page, out)
	}
}

func (s *sequential) arrived(uint64, []byte) {}
