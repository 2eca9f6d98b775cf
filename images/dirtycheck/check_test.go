package dirtycheck

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

func eachPattern(t *testing.T, fn func(t *testing.T, p Pattern)) {
	t.Helper()
	for _, p := range []Pattern{Seq, Random, Zipf, Stride, Cluster} {
		t.Run(p.String(), func(t *testing.T) { fn(t, p) })
	}
}

func params(p Pattern) Params {
	return Params{Seed: 7, Pages: 37, LinesPerPage: 5, BytesPerLine: 64, Pattern: p, Table: true}
}

func TestCheckClean(t *testing.T) {
	for _, vcpus := range []int{1, 2, 4} {
		for _, lines := range []int{1, 7, 64} {
			for _, bytes := range []int{1, 8, 13, 64} {
				eachPattern(t, func(t *testing.T, pattern Pattern) {
					t.Run(fmt.Sprintf("%d vcpus, %d lines, %d bytes", vcpus, lines, bytes), func(t *testing.T) {
						w := newTwin(t, vcpus, Params{
							Seed: 3, Pages: 37, LinesPerPage: lines, BytesPerLine: bytes, Pattern: pattern,
							Table: bytes != 13,
						})
						w.run(500)
						r := w.check()
						if r.Mismatches != 0 || r.Steps() != uint64(500*vcpus) || r.LinesChecked != uint64(37*lines) {
							t.Errorf("%d mismatches in %d lines after %d steps: %v", r.Mismatches, r.LinesChecked,
								r.Steps(), r.Details)
						}
					})
				})
			}
		}
	}
}

// Whichever store the machine is paused after, nothing is wrong.
func TestCheckAtEveryStore(t *testing.T) {
	eachPattern(t, func(t *testing.T, pattern Pattern) {
		w := newTwin(t, 2, params(pattern))
		w.run(300)
		for stores := 0; ; stores++ {
			_, all := w.step(0, stores)
			if r := w.check(); r.Mismatches != 0 {
				t.Fatalf("after %d stores: %v", stores, r.Details)
			}
			if all {
				return
			}
		}
	})
}

// While a vCPU is inside a step, only the line of that step is forgiven, and only bytes of the two steps.
func TestCheckInFlightIsNarrow(t *testing.T) {
	eachPattern(t, func(t *testing.T, pattern Pattern) {
		w := newTwin(t, 2, params(pattern))
		w.run(300)
		at, _ := w.step(0, 4)
		var b [1]byte
		if err := w.mem.ReadAt(at+63, b[:]); err != nil {
			t.Fatal(err)
		}
		w.mem.write(t, at+63, []byte{^b[0]})
		_, other, _ := w.written(1, 1)
		w.mem.write(t, other, make([]byte, lineBytes))
		r := w.check()
		if r.Mismatches != 2 {
			t.Fatalf("%d mismatches instead of 2: %v", r.Mismatches, r.Details)
		}
	})
}

func TestCheckNamesTheLine(t *testing.T) {
	type damage struct {
		name string
		kind Kind
		do   func(w *twin, line uint64, at memory.GPA, steps []uint64) (step uint64)
	}
	damages := []damage{
		{"lost", Lost, func(w *twin, _ uint64, at memory.GPA, _ []uint64) uint64 {
			w.mem.write(w.t, at, make([]byte, lineBytes))
			return 0
		}},
		{"stale", Stale, func(w *twin, _ uint64, at memory.GPA, steps []uint64) uint64 {
			old := steps[len(steps)-2]
			c := (&writer{stream: w.streams[1]}).content(old, w.p.BytesPerLine)
			w.mem.write(w.t, at, c[:])
			return old
		}},
		{"torn", Torn, func(w *twin, _ uint64, at memory.GPA, steps []uint64) uint64 {
			old := steps[len(steps)-2]
			c := (&writer{stream: w.streams[1]}).content(old, w.p.BytesPerLine)
			w.mem.write(w.t, at+32, c[32:])
			return old
		}},
		{"corrupt", Corrupt, func(w *twin, _ uint64, at memory.GPA, _ []uint64) uint64 {
			w.mem.write(w.t, at, []byte("not from here"))
			return 0
		}},
		{"table", Table, func(w *twin, line uint64, _ memory.GPA, steps []uint64) uint64 {
			w.mem.write64(w.t, tableAt(1)+memory.GPA(8*line), steps[len(steps)-2])
			return steps[len(steps)-2]
		}},
	}
	eachPattern(t, func(t *testing.T, pattern Pattern) {
		for _, d := range damages {
			t.Run(d.name, func(t *testing.T) {
				w := newTwin(t, 4, params(pattern))
				w.run(400)
				line, at, steps := w.written(1, 2)
				found := d.do(w, line, at, steps)
				r := w.check()
				if r.Mismatches != 1 || len(r.Details) != 1 {
					t.Fatalf("%d mismatches instead of 1: %v", r.Mismatches, r.Details)
				}
				m := r.Details[0]
				if m.Kind == Table {
					at = tableAt(1) + memory.GPA(8*line)
				}
				if m.Kind != d.kind || m.Address != at || m.VCPU != 1 || m.Line != line ||
					m.Step != steps[len(steps)-1] || m.FoundStep != found {
					t.Errorf("wrong diagnosis, want %v of line %d, last step %d, found step %d: %+v", d.kind, line,
						steps[len(steps)-1], found, m)
				}
				if !strings.HasPrefix(m.String(), d.name+": vcpu 1 line") {
					t.Errorf("text %q", m)
				}
			})
		}
	})
}

// A record that stayed behind (its page was sent too early) shows as lines that are ahead of it.
func TestCheckStaleRecord(t *testing.T) {
	eachPattern(t, func(t *testing.T, pattern Pattern) {
		w := newTwin(t, 1, params(pattern))
		w.run(100)
		w.mem.write64(t, recordAt(0), 90)
		w.mem.write64(t, recordAt(0)+8, 90)
		r := w.check()
		if r.Mismatches == 0 || r.Details[0].Kind != Ahead || r.Details[0].FoundStep <= 90 {
			t.Errorf("%d mismatches: %v", r.Mismatches, r.Details)
		}
		w.mem.write64(t, recordAt(0)+8, 80)
		if r := w.check(); r.Details[0].Kind != Record {
			t.Errorf("next 90 with done 80 passed: %v", r.Details)
		}
	})
}

func TestReadStateRefuses(t *testing.T) {
	tests := []struct {
		name string
		at   memory.GPA
		to   uint64
		want error
	}{
		{"no magic", 0, 0, ErrNotReady},
		{"version and vcpus", 8, version + 1 | 1<<32, ErrBadHeader},
		{"no vcpus", 8, 1, ErrBadHeader},
		{"many vcpus", 8, 1 | 65<<32, ErrBadHeader},
		{"other number of vcpus", 8, 1 | 3<<32, ErrBadHeader},
		{"base off a page", 24, 1, ErrBadHeader},
		{"base wraps", 24, 1 << 63, ErrBadHeader},
		{"no pages", 32, 0, ErrBadHeader},
		{"huge number of pages", 32, 1 << 62, ErrBadHeader},
		{"no lines", 40, 64 << 32, ErrBadHeader},
		{"no bytes", 40, 5, ErrBadHeader},
		{"65 lines", 40, 65 | 64<<32, ErrBadHeader},
		{"pattern", 48, uint64(Cluster) + 1, ErrBadHeader},
		{"records outside memory", 80, 1 << 40, memory.ErrOutOfRange},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newTwin(t, 2, params(Random))
			w.mem.write64(t, HeaderAt+tt.at, tt.to)
			if _, err := Check(w.mem, 1); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("region beyond memory", func(t *testing.T) {
		w := newTwin(t, 1, Params{Pages: 37, LinesPerPage: 1, BytesPerLine: 8})
		w.mem.write64(t, HeaderAt+24, w.mem.size-memory.PageSize)
		if _, err := Check(w.mem, 1); !errors.Is(err, ErrBadHeader) || !errors.Is(err, memory.ErrOutOfRange) {
			t.Errorf("error %v", err)
		}
	})
}

func FuzzCheck(f *testing.F) {
	w := newTwin(f, 2, params(Zipf))
	w.run(10)
	f.Add(w.header())
	f.Fuzz(func(t *testing.T, header []byte) {
		w := newTwin(t, 2, params(Zipf))
		w.run(10)
		w.mem.size = 1 << 26 // bounds what a header can ask for
		w.mem.write(t, HeaderAt, header[:min(len(header), headerBytes)])
		if r, err := Check(w.mem, 3); err == nil && len(r.Details) > 3 {
			t.Errorf("%d details", len(r.Details))
		}
	})
}
