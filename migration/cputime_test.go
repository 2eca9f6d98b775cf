package migration

import (
	"errors"
	"testing"
	"time"
)

// meteredSource is a machine whose process takes a quarter of a second of a processor from one question to the next. Reading
// number fails, from 1, fails.
type meteredSource struct {
	Source
	asked, fails int
}

func (s *meteredSource) CPUTime() (time.Duration, error) {
	if s.asked++; s.asked == s.fails {
		return 0, errors.New("no clock")
	}
	return time.Hour + time.Duration(s.asked)*250*time.Millisecond, nil
}

// TestSourceCPUTime: from the start to the end, or nothing at all.
func TestSourceCPUTime(t *testing.T) {
	for fails, want := range map[int]float64{0: 250, 1: 0, 2: 0} {
		p := newPair(t)
		p.source = &meteredSource{Source: p.src, fails: fails}
		if out := p.migrate(); out.sendErr != nil || out.sent.SourceCPUMS != want {
			t.Errorf("reading %d fails: %v ms, want %v (%v)", fails, out.sent.SourceCPUMS, want, out.sendErr)
		}
	}
	p := newPair(t)
	if out := p.migrate(); out.sent.SourceCPUMS != 0 {
		t.Errorf("a source that cannot tell took %v ms", out.sent.SourceCPUMS)
	}
}
