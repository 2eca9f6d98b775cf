package memory

import (
	"maps"
	"slices"
	"testing"
)

func testSet(t testing.TB, regions []Region) *PageSet {
	t.Helper()
	l, err := newLayout(regions)
	if err != nil {
		t.Fatal(err)
	}
	return newPageSet(l)
}

func TestPageSet(t *testing.T) {
	s := testSet(t, testRegions)
	for _, gpa := range []GPA{0, 5*PageSize - 1, 5 * PageSize, testHigh + 66*PageSize + 17} {
		if !s.Add(gpa) || !s.Has(gpa) || !s.Has(gpa&^(PageSize-1)) {
			t.Errorf("%#x is not in", gpa)
		}
	}
	for _, gpa := range []GPA{8 * PageSize, testHigh - 1, testHigh + 67*PageSize, 1<<64 - 1} {
		if s.Add(gpa) || s.Has(gpa) {
			t.Errorf("%#x is in", gpa)
		}
	}
	wantPages(t, "added", s, 0, 4*PageSize, 5*PageSize, testHigh+66*PageSize)

	seen := 0
	s.Range(func(GPA) bool { seen++; return seen < 2 })
	if seen != 2 {
		t.Errorf("Range went on after false: %d calls", seen)
	}
	other := testSet(t, testRegions) // same regions, another guest
	other.Add(testHigh)
	other.Union(s)
	wantPages(t, "union", other, 0, 4*PageSize, 5*PageSize, testHigh, testHigh+66*PageSize)
	s.Clear()
	wantPages(t, "clear", s)
}

func TestAddBits(t *testing.T) {
	s := testSet(t, testRegions)
	s.AddBits(testHigh, 67, []uint64{1 | 1<<63, ^uint64(0)}) // 3 bits of the second word count
	s.AddBits(5*PageSize, 3, []uint64{0b11111010})
	s.AddBits(0, 5, nil)
	wantPages(t, "bits", s, 6*PageSize, testHigh, testHigh+63*PageSize,
		testHigh+64*PageSize, testHigh+65*PageSize, testHigh+66*PageSize)
}

func TestPageSetPanics(t *testing.T) {
	s := testSet(t, testRegions)
	for name, fn := range map[string]func(){
		"union of strangers": func() { s.Union(testSet(t, testRegions[:1])) },
		"too many words":     func() { s.AddBits(0, 5, make([]uint64, 2)) },
		"too many pages":     func() { s.AddBits(PageSize, 5, make([]uint64, 1)) },
		"no such region":     func() { s.AddBits(8*PageSize, 1, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			fn()
		}()
	}
}

// FuzzPageSet runs a program of two-byte instructions on a set and on a map.
func FuzzPageSet(f *testing.F) {
	f.Add([]byte{0, 1, 0, 70, 1, 3, 2, 9, 3, 200, 4, 0})
	f.Add([]byte{3, 0xff, 3, 0x7f, 2, 66, 4, 0, 5, 0, 3, 2})
	f.Fuzz(func(t *testing.T, program []byte) {
		s, other := testSet(t, testRegions), testSet(t, testRegions)
		want, wantOther := map[GPA]bool{}, map[GPA]bool{}
		spans := s.layout.spans
		page := func(arg byte) GPA { // all pages, and some addresses that are none
			if arg < 10 {
				return GPA(arg) * PageSize
			}
			return testHigh + GPA(arg-10)*PageSize
		}
		inRAM := func(gpa GPA) bool {
			return slices.ContainsFunc(testRegions, func(r Region) bool {
				return gpa >= r.Base && gpa < r.Base+GPA(r.SizeBytes)
			})
		}
		for ; len(program) >= 2; program = program[2:] {
			arg := program[1]
			switch program[0] % 8 {
			case 0:
				if gpa := page(arg); s.Add(gpa+5) != inRAM(gpa) {
					t.Fatalf("Add(%#x)", gpa)
				} else if inRAM(gpa) {
					want[gpa] = true
				}
			case 1:
				if gpa := page(arg); other.Add(gpa) {
					wantOther[gpa] = true
				}
			case 2: // a range of pages in the last region
				r := &spans[2]
				last := uint64(arg) % r.pages()
				first := last / 3
				if !s.AddRange(r.Base+GPA(first)*PageSize+9, (last-first)*PageSize+1) {
					t.Fatalf("pages %d to %d are not RAM", first, last)
				}
				for p := first; p <= last; p++ {
					want[r.Base+GPA(p)*PageSize] = true
				}
			case 3: // bits for a part of any region
				r := &spans[int(arg)%3]
				first := uint64(arg) / 3 % r.pages()
				pages := r.pages() - first
				bits := make([]uint64, (pages+63)/64)
				for i := range bits {
					bits[i] = uint64(arg) * 0x0101010101010101
				}
				s.AddBits(r.Base+GPA(first)*PageSize, pages, bits)
				for p := range pages {
					if bits[p/64]>>(p%64)&1 != 0 {
						want[r.Base+GPA(first+p)*PageSize] = true
					}
				}
			case 6:
				s.Intersect(other)
				maps.DeleteFunc(want, func(p GPA, _ bool) bool { return !wantOther[p] })
			case 7:
				s.Subtract(other)
				maps.DeleteFunc(want, func(p GPA, _ bool) bool { return wantOther[p] })
			case 4:
				s.Union(other)
				maps.Copy(want, wantOther)
			case 5:
				s.Clear()
				clear(want)
			}
		}
		wantPages(t, "end", s, slices.Sorted(maps.Keys(want))...)
	})
}

func TestRangePart(t *testing.T) {
	s := testSet(t, []Region{{Base: 0, SizeBytes: 1300 * PageSize}, {Base: 1 << 32, SizeBytes: 3 * PageSize}})
	s.AddRange(0, 1300*PageSize)
	s.AddRange(1<<32, 3*PageSize)
	var whole, parts []GPA
	s.Range(func(gpa GPA) bool { whole = append(whole, gpa); return true })
	for part := range s.Parts() {
		s.RangePart(part, func(gpa GPA) bool { parts = append(parts, gpa); return true })
	}
	if !slices.Equal(whole, parts) {
		t.Errorf("%d pages in all and %d in the %d parts", len(whole), len(parts), s.Parts())
	}
	seen := 0
	s.RangePart(1, func(GPA) bool { seen++; return false })
	if seen != 1 {
		t.Errorf("RangePart went on after false: %d calls", seen)
	}
}
