package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// gather does what diff.Gather does.
func gather(page []byte, mask uint64) (lines []byte) {
	for ; mask != 0; mask &= mask - 1 {
		at := bits.TrailingZeros64(mask) * lineBytes
		lines = append(lines, page[at:at+lineBytes]...)
	}
	return lines
}

// payload seals the batch and returns its records.
func payload(b *Batch) []byte {
	b.Seal()
	return b.view.AsSlice()[HeaderBytes:]
}

// TestLinesFormat: the bytes of the protocol, one by one.
func TestLinesFormat(t *testing.T) {
	old := bytes.Repeat([]byte{0xee}, memory.PageSize)
	fresh := bytes.Clone(old)
	fresh[3*64+8] = 1                                                                            // line 3, word 1, byte 0
	copy(fresh[3*64+56:], []byte{0xa0, 0xee, 0xa2, 0xee, 0xee, 0xee, 0xee, 0xa7})                // word 7, with gaps
	copy(fresh[4*64:], []byte{0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xee, 0xc1, 0xc2}) // line 4
	raw := bytes.Repeat([]byte{0xdd}, 64)

	b := NewBatch(MaxBatchBytes)
	lines := func(mask uint64) ([]byte, []byte) { return gather(fresh, mask), gather(old, mask) }
	f, o := lines(1 << 3)
	sizes := []int{b.AppendDelta(0x10, 1<<3, f, o)}
	f, o = lines(1<<3 | 1<<4 | 1<<63)
	sizes = append(sizes,
		b.AppendDelta(0x11, 1<<3|1<<4|1<<63, f, o),
		b.AppendLines(0x11+300, 1<<63, raw),
		b.AppendDelta(0x11+301, 1, raw, gather(old, 1)), // larger than raw
		b.AppendDelta(0x11+302, 3, append(bytes.Clone(raw), raw...), gather(old, 3)))
	b.AppendZero(0x11 + 303)
	sizes = append(sizes, b.AppendLines(0x11+304, 1<<63, raw))

	want := "10000000000000000337010005000000" + // 0x137 bytes of 5 pages from 0x10
		"00 03 82 0101 85a0a2a7" + // no gap, line 3: words 1 and 7
		"01 80 1800000000000080 82 0101 85a0a2a7 03 ff b0b1b2b3b4b5b6b7 06 c1c2 00" +
		"ac02 7f " + hex.EncodeToString(raw) +
		"01 40 " + hex.EncodeToString(raw) +
		"01 81 0300000000000000 " + hex.EncodeToString(raw) + hex.EncodeToString(raw) +
		"40010000000000000200000001000000" +
		"41010000000000000342000001000000" +
		"00 7f " + hex.EncodeToString(raw)
	bin, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(want), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got := payload(b); !bytes.Equal(got, bin) {
		t.Errorf("\n%x, want\n%x", got, bin)
	}
	if wantSizes := []int{16 + 9, 1 + 9 + 7 + 10 + 3 + 1, 3 + 64, 2 + 64, 10 + 128, 16 + 66}; !slices.Equal(sizes, wantSizes) {
		t.Errorf("sizes %v, want %v", sizes, wantSizes)
	}
}

// change makes a page that differs from old in a random way.
func change(rng *rand.Rand, old []byte) (fresh []byte, mask uint64) {
	fresh = bytes.Clone(old)
	style := rng.IntN(4)
	for range 1 + rng.IntN(200) {
		at := rng.IntN(memory.PageSize)
		switch style {
		case 0: // single bytes
			fresh[at]++
		case 1: // numbers
			at &^= 7
			binary.LittleEndian.PutUint64(fresh[at:], binary.LittleEndian.Uint64(fresh[at:])+rng.Uint64()>>rng.IntN(64))
		case 2: // noise
			for i := range fresh[at : at+min(lineBytes, len(fresh)-at)] {
				fresh[at+i] = byte(rng.Uint32())
			}
		case 3: // most bytes of a word
			at &^= 7
			for i := range 8 {
				fresh[at+i] ^= byte(rng.Uint32()&1) * 0x80
			}
		}
	}
	for i := range memory.PageSize / lineBytes {
		if !bytes.Equal(fresh[i*lineBytes:][:lineBytes], old[i*lineBytes:][:lineBytes]) {
			mask |= 1 << i
		}
	}
	return fresh, mask
}

func randomPage(rng *rand.Rand) []byte {
	page := make([]byte, memory.PageSize)
	for i := range page {
		page[i] = byte(rng.Uint32())
	}
	return page
}

// TestLinesRoundTrip: what is encoded against a twin makes the page when it is applied to the twin.
func TestLinesRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	type sent struct {
		page       uint64
		mask       uint64
		old, fresh []byte
	}
	b := NewBatch(MaxBatchBytes)
	for lines := range 4 * 64 {
		b.Reset()
		var all []sent
		for number := rng.Uint64N(1 << 40); !b.Full() && len(all) < 20; number += 1 + rng.Uint64()>>(20+rng.IntN(44)) {
			old := randomPage(rng)
			fresh, mask := change(rng, old)
			for bits.OnesCount64(mask) < 1+lines/4 { // lines that are equal
				mask |= 1 << rng.IntN(64)
			}
			for bits.OnesCount64(mask) > 1+lines/4 {
				mask &^= 1 << rng.IntN(64)
			}
			all = append(all, sent{number, mask, old, fresh})
			before := b.SizeBytes()
			grown := 0
			if rng.IntN(4) == 0 {
				grown = b.AppendLines(number, mask, gather(fresh, mask))
			} else {
				grown = b.AppendDelta(number, mask, gather(fresh, mask), gather(old, mask))
			}
			if worst := RecordBytes + maxEntryHeadBytes + bits.OnesCount64(mask)*lineBytes; grown > worst || grown != b.SizeBytes()-before {
				t.Fatalf("%d bytes for mask %#x, grown by %d", grown, mask, b.SizeBytes()-before)
			}
		}
		rec, rest, err := nextRecord(payload(b))
		if err != nil || len(rest) != 0 || rec.Kind != KindLines || int(rec.Count) != len(all) || rec.First != all[0].page {
			t.Fatalf("%+v, %d bytes of rest, %v", rec, len(rest), err)
		}
		r := rec.entries()
		for _, s := range all {
			page, body, ok, err := r.next()
			if err != nil || !ok || page != s.page || body.mask != s.mask {
				t.Fatalf("page %#x with mask %#x, %v, %v, want %#x with %#x", page, body.mask, ok, err, s.page, s.mask)
			}
			got := bytes.Clone(s.old)
			if err := body.Apply(got); err != nil {
				t.Fatal(err)
			}
			want := bytes.Clone(s.old)
			for m := s.mask; m != 0; m &= m - 1 {
				at := bits.TrailingZeros64(m) * lineBytes
				copy(want[at:at+lineBytes], s.fresh[at:])
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("page %#x with mask %#x: what is applied is not what was sent", page, s.mask)
			}
			if err := body.Apply(got[:memory.PageSize-1]); err == nil {
				t.Fatal("a short page was written")
			}
		}
		if _, _, ok, err := r.next(); ok || err != nil {
			t.Fatalf("at the end: %v, %v", ok, err)
		}
	}
}

// TestRetract: every kind of page can be taken back, and the record before it grows on.
func TestRetract(t *testing.T) {
	page := bytes.Repeat([]byte{1}, memory.PageSize)
	line := page[:lineBytes]
	appends := map[string]func(b *Batch){
		"data":       func(b *Batch) { b.AppendPage(6, page) },
		"zero":       func(b *Batch) { b.AppendZero(6) },
		"lines":      func(b *Batch) { b.AppendLines(6, 1, line) },
		"delta":      func(b *Batch) { b.AppendDelta(6, 1, line, line) },
		"descending": func(b *Batch) { b.AppendLines(1, 1, line) },
	}
	for last, again := range appends {
		plain := NewBatch(MaxBatchBytes)
		plain.AppendZero(2)
		again(plain)
		want := bytes.Clone(payload(plain))
		for name, add := range appends {
			b := NewBatch(MaxBatchBytes)
			b.AppendZero(2)
			size := b.SizeBytes()
			add(b)
			b.Retract()
			b.Retract() // does nothing
			if b.SizeBytes() != size {
				t.Errorf("%s: %d bytes stay", name, b.SizeBytes()-size)
			}
			again(b)
			if got := payload(b); !bytes.Equal(got, want) {
				t.Errorf("%s after a retracted %s: %x, want %x", last, name, got, want)
			}
		}
	}
}

// TestLinesJoin: lines join while their pages ascend, and only lines.
func TestLinesJoin(t *testing.T) {
	line := make([]byte, lineBytes)
	b := NewBatch(MaxBatchBytes)
	for _, n := range []uint64{4, 5, 1 << 51, 7, 7, 6} {
		b.AppendLines(n, 1, line)
	}
	b.AppendZero(7)
	b.AppendLines(8, 1, line)
	got := records(t, b)
	want := []gotRecord{{KindLines, 4, 3, 0}, {KindLines, 7, 1, 0}, {KindLines, 7, 1, 0}, {KindLines, 6, 1, 0}, {KindZero, 7, 1, 0}, {KindLines, 8, 1, 0}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestLinesFill: any page fits while the batch is not full, and a batch of lines does not allocate.
func TestLinesFill(t *testing.T) {
	page := bytes.Repeat([]byte{1}, memory.PageSize)
	b := NewBatch(MinBatchBytes)
	if b.Full() {
		t.Fatal("an empty batch is full")
	}
	if n := b.AppendLines(maxPages-1, ^uint64(0), page); n != MinBatchBytes || b.SizeBytes() > MinBatchBytes {
		t.Errorf("%d bytes for all lines, in a batch of %d", n, MinBatchBytes)
	}
	b = NewBatch(MaxBatchBytes)
	capacity := b.view.Capacity()
	old := make([]byte, memory.PageSize)
	for _, step := range []uint64{1, 1 << 43} {
		if allocs := testing.AllocsPerRun(1, func() {
			b.Reset()
			for n := uint64(0); !b.Full(); n += step {
				b.AppendDelta(n, ^uint64(0), page, old)
				if n += step; !b.Full() {
					b.AppendLines(n, ^uint64(0)>>1, page[lineBytes:])
				}
			}
			b.Seal()
		}); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
		if b.SizeBytes() > MaxBatchBytes || b.view.Capacity() != capacity {
			t.Errorf("a full batch has %d bytes, its buffer %d", b.SizeBytes(), b.view.Capacity())
		}
	}
}

func TestLinesPanics(t *testing.T) {
	line := make([]byte, 2*lineBytes)
	for name, fn := range map[string]func(b *Batch){
		"no lines":    func(b *Batch) { b.AppendLines(1, 0, nil) },
		"short lines": func(b *Batch) { b.AppendLines(1, 7, line) },
		"long lines":  func(b *Batch) { b.AppendDelta(1, 1, line, line) },
		"short old":   func(b *Batch) { b.AppendDelta(1, 3, line, line[:lineBytes]) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			fn(NewBatch(MinBatchBytes))
		}()
	}
}

// linesRecord makes a record of entries that nobody has checked.
func linesRecord(first uint64, count uint32, entries ...byte) []byte {
	var head [RecordBytes]byte
	putRecord(&head, KindLines, first, count, len(entries))
	return append(head[:], entries...)
}

// readLines applies all records of a payload to one page and returns how many pages they were.
func readLines(payload []byte) (pages int, err error) {
	var page [memory.PageSize]byte
	err = EachRecord(payload, func(rec Record) error {
		if rec.Kind != KindLines {
			return nil
		}
		next := uint64(0)
		return rec.EachEntry(func(number uint64, body LineBody) error {
			if number >= maxPages || number < rec.First || next > number || body.mask == 0 {
				panic("a page that no check should have passed")
			}
			next = number + 1
			if err := body.Apply(page[:]); err != nil {
				panic(err)
			}
			pages++
			return nil
		})
	})
	return pages, err
}

func TestBadLines(t *testing.T) {
	raw := make([]byte, lineBytes)
	two := slices.Concat([]byte{0, 0x40}, raw, []byte{1, 0x40}, raw)
	if n, err := readLines(linesRecord(5, 2, two...)); err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	mask := func(head byte, m uint64, body ...byte) []byte {
		return append(binary.LittleEndian.AppendUint64([]byte{0, head}, m), body...)
	}
	long := bytes.Repeat([]byte{0xff}, 12)
	for name, tc := range map[string]struct {
		first  uint64
		count  uint32
		bytes  []byte
		passed int // entries before the bad one
	}{
		"first has a gap":     {5, 1, slices.Concat([]byte{1, 0x40}, raw), 0},
		"page repeated":       {5, 2, slices.Concat(two[:66], []byte{0, 0x40}, raw), 1},
		"page beyond memory":  {maxPages - 2, 2, slices.Concat(two[:66], []byte{2, 0x40}, raw), 1},
		"gap overflows":       {5, 2, slices.Concat(two[:66], bytes.Repeat([]byte{0xff}, 9), []byte{1, 0x40}, raw), 1},
		"gap without end":     {5, 1, long, 0},
		"no head":             {5, 2, append(bytes.Clone(two[:66]), 1), 1},
		"unknown head":        {5, 1, mask(0x82, 1, raw...), 0},
		"last head":           {5, 1, mask(0xff, 1, raw...), 0},
		"mask cut short":      {5, 1, mask(0x80, 1)[:9], 0},
		"mask of 0":           {5, 1, mask(0x81, 0), 0},
		"delta mask of 0":     {5, 1, mask(0x80, 0), 0},
		"raw line cut short":  {5, 1, two[:65], 0},
		"raw lines cut short": {5, 1, mask(0x81, 3, append(raw, raw[1:]...)...), 0},
		"no delta":            {5, 2, append(bytes.Clone(two[:66]), 1, 0), 1},
		"no bytes mask":       {5, 1, []byte{0, 0, 0x80}, 0},
		"bytes mask of 0":     {5, 1, []byte{0, 0, 0x80, 0}, 0},
		"no bytes":            {5, 1, []byte{0, 0, 0x80, 0x01}, 0},
		"bytes cut short":     {5, 1, []byte{0, 0, 0x81, 0x01, 7, 0xff, 1, 2, 3, 4, 5, 6, 7}, 0},
		"second line missing": {5, 1, mask(0x80, 3, 0x01, 0x01, 7), 0},
		"bytes left over":     {5, 1, two, 1},
		"pages missing":       {5, 3, two, 2},
	} {
		n, err := readLines(linesRecord(tc.first, tc.count, tc.bytes...))
		if !errors.Is(err, ErrProtocol) || n != tc.passed {
			t.Errorf("%s: %v after %d entries, want %d", name, err, n, tc.passed)
		}
	}
	for name, record := range map[string][]byte{
		"more than there is": linesRecord(5, 2, two...)[:RecordBytes+100],
		"too many pages":     linesRecord(5, 50, two...),
		"no pages":           linesRecord(5, 0, two...),
		"pages overflow":     linesRecord(maxPages-1, 2, two...),
	} {
		if _, _, err := nextRecord(record); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLines reads arbitrary entries: errors, no panics, no store outside the page.
func FuzzLines(f *testing.F) {
	f.Add(uint64(5), uint32(1), []byte{0, 3, 0x82, 0x01, 1, 0x85, 1, 2, 3})
	f.Add(uint64(5), uint32(2), append(make([]byte, 3), 0xac, 2, 0, 0))
	f.Add(uint64(5), uint32(1), append([]byte{0, 0x7f}, make([]byte, lineBytes)...))
	f.Add(uint64(1<<51), uint32(1), append([]byte{0, 0x81, 3, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 2*lineBytes)...))
	f.Add(uint64(0), uint32(1), []byte{0, 0x80, 3, 0, 0, 0, 0, 0, 0, 0x80, 1, 1, 7, 0, 0x80, 0x80, 7})
	f.Fuzz(func(t *testing.T, first uint64, count uint32, entries []byte) {
		if len(entries) > MaxBatchBytes {
			return
		}
		if n, err := readLines(linesRecord(first, count, entries...)); err == nil && n != int(count) {
			t.Fatalf("%d pages, said to be %d", n, count)
		}
	})
}

// FuzzDelta: any two lines, by way of the delta.
func FuzzDelta(f *testing.F) {
	f.Add(make([]byte, 64), bytes.Repeat([]byte{1, 0, 0}, 30))
	f.Add(bytes.Repeat([]byte{7}, 128), bytes.Repeat([]byte{7, 7, 7, 7, 8}, 26))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var fresh, old [lineBytes]byte
		copy(fresh[:], a)
		copy(old[:], b)
		var delta lineDelta
		n := putLineDelta(&delta, &fresh, &old)
		if n > maxLineDeltaBytes || deltaSize(delta[:n], 1) != n {
			t.Fatalf("a delta of %d bytes: %x", n, delta)
		}
		for cut := range n {
			if size := deltaSize(delta[:cut], 1); size >= 0 && size <= cut {
				t.Fatalf("a delta cut at %d of %d passes", cut, n)
			}
		}
		if used := applyDelta(&old, delta[:n:n]); used != n || old != fresh {
			t.Fatalf("%x becomes %x by %x", fresh, old, delta[:n])
		}
	})
}
