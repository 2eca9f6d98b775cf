package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/fineline-vmm/fineline/memory"
)

// The head of an entry. A single line needs no mask.
const (
	headOneDelta  = 0x00 // to 0x3f: one line, of that index, delta-coded
	headOneRaw    = 0x40 // to 0x7f: one line, of the index head-0x40, its bytes
	headManyDelta = 0x80 // a mask of 8 bytes, the lines delta-coded in ascending order
	headManyRaw   = 0x81 // a mask of 8 bytes, the lines' bytes
)

// Sizes of entries.
const (
	lineBytes = 64
	maskBytes = 8

	minEntryBytes = 3 // a gap, a head, a delta that changes nothing
	// maxGapBytes is the size of the longest gap, 52 bits.
	maxGapBytes = 8
	// maxEntryHeadBytes is all that stands before the lines.
	maxEntryHeadBytes = maxGapBytes + 1 + maskBytes
	// maxOpeningEntryBytes is the largest first entry of a record, the gap of which is 0. Later ones are
	// larger by less than a record's header.
	maxOpeningEntryBytes = 1 + 1 + maskBytes + memory.PageSize
	// maxEntryBytes is the largest entry while it is made: a delta is given up once it passes a raw page.
	maxEntryBytes = maxEntryHeadBytes + memory.PageSize + maxLineDeltaBytes + deltaSlackBytes
)

// AppendLines adds the lines of a page that are in mask, and returns by how many bytes the batch has
// grown, a new record's header included. fresh has the lines one after the other, as diff.Gather makes
// them, and is not of this batch. Precondition: not Full, mask not 0.
func (b *Batch) AppendLines(number, mask uint64, fresh []byte) int {
	mustMatch(mask, fresh)
	gap := b.openEntry(number)
	n := putEntryHead(b.entry[:], gap, mask, true)
	_, _ = b.view.Write(b.entry[:n]) // there is room
	_, _ = b.view.Write(fresh)
	return b.view.Size() - b.before.size
}

// AppendDelta is AppendLines of what differs from old, the lines of the same mask that the destination
// has. Lines that differ much go raw. Equal ones are allowed and cost a byte each.
func (b *Batch) AppendDelta(number, mask uint64, fresh, old []byte) int {
	mustMatch(mask, fresh)
	mustMatch(mask, old)
	gap := b.openEntry(number)
	n := putEntryHead(b.entry[:], gap, mask, false)
	size, ok := putDelta(b.entry[n:], fresh, old)
	if !ok {
		n = putEntryHead(b.entry[:], gap, mask, true)
		size = 0
	}
	_, _ = b.view.Write(b.entry[:n+size])
	if !ok {
		_, _ = b.view.Write(fresh)
	}
	return b.view.Size() - b.before.size
}

// mustMatch panics on lines that are not those of the mask: a bug of the caller.
func mustMatch(mask uint64, lines []byte) {
	if n := bits.OnesCount64(mask) * lineBytes; mask == 0 || len(lines) != n {
		panic(fmt.Sprintf("wire: %d bytes for the lines of mask %#x", len(lines), mask))
	}
}

// openEntry extends the batch by a page's entry and returns the entry's gap.
func (b *Batch) openEntry(number uint64) (gap uint64) {
	last := b.run.last
	b.extend(KindLines, number)
	if b.run.count == 1 {
		return 0
	}
	return number - last
}

// putEntryHead writes what stands before the lines and returns its size.
func putEntryHead(dst []byte, gap, mask uint64, raw bool) int {
	one, many := byte(headOneDelta), byte(headManyDelta)
	if raw {
		one, many = headOneRaw, headManyRaw
	}
	n := binary.PutUvarint(dst, gap)
	if mask&(mask-1) == 0 {
		dst[n] = one | byte(bits.TrailingZeros64(mask))
		return n + 1
	}
	dst[n] = many
	binary.LittleEndian.PutUint64(dst[n+1:], mask)
	return n + 1 + maskBytes
}

// EachEntry calls fn for the pages of a KindLines record, in order, and ends with the first that is malformed or the first
// error of fn. Every count and size is checked here; whether the pages exist is checked by whoever owns the memory.
func (r Record) EachEntry(fn func(page uint64, lines LineBody) error) error {
	for entries := r.entries(); ; {
		page, lines, ok, err := entries.next()
		if err == nil && ok {
			err = fn(page, lines)
		}
		if err != nil || !ok {
			return err
		}
	}
}

func (r Record) entries() entryReader {
	return entryReader{rest: r.Data, page: r.First, left: r.Count}
}

// entryReader reads the entries of one record.
type entryReader struct {
	rest []byte
	page uint64 // of the entry before; at the first, its own
	left uint32
	read bool // an entry was
}

// next returns the next page and its lines, or false after the last one. An error says that this entry,
// or what is behind the last one, is malformed; the ones before it were good.
func (r *entryReader) next() (page uint64, lines LineBody, ok bool, err error) {
	if r.left == 0 {
		if len(r.rest) != 0 {
			return 0, LineBody{}, false, protocolErrorf("a record of lines has %d bytes after its last page", len(r.rest))
		}
		return 0, LineBody{}, false, nil
	}
	if err := r.skipGap(); err != nil {
		return 0, LineBody{}, false, err
	}
	lines, size, err := parseLines(r.rest)
	if err != nil {
		return 0, LineBody{}, false, fmt.Errorf("page %#x: %w", r.page, err)
	}
	r.rest = r.rest[size:]
	r.left--
	return r.page, lines, true, nil
}

// skipGap reads the gap of an entry. Pages ascend.
func (r *entryReader) skipGap() error {
	gap, n := binary.Uvarint(r.rest)
	if n <= 0 || (gap == 0) == r.read || gap >= maxPages-r.page {
		return protocolErrorf("a record of lines has a gap of %d in %d bytes after page %#x", gap, n, r.page)
	}
	r.rest = r.rest[n:]
	r.page += gap
	r.read = true
	return nil
}

// parseLines checks the head and the lines of the first entry in rest, and returns their size.
func parseLines(rest []byte) (lines LineBody, size int, err error) {
	if len(rest) == 0 {
		return LineBody{}, 0, protocolErrorf("an entry without head")
	}
	head, n := rest[0], 1
	switch {
	case head < headManyDelta:
		lines.mask = 1 << (head &^ headOneRaw)
		lines.raw = head >= headOneRaw
	case head > headManyRaw || len(rest) < 1+maskBytes:
		return LineBody{}, 0, protocolErrorf("an entry with head %#x and %d bytes", head, len(rest))
	default:
		lines.mask = binary.LittleEndian.Uint64(rest[1:])
		lines.raw = head == headManyRaw
		n += maskBytes
	}
	count := bits.OnesCount64(lines.mask)
	if count == 0 {
		return LineBody{}, 0, protocolErrorf("an entry without lines")
	}
	size = count * lineBytes
	if !lines.raw {
		size = deltaSize(rest[n:], count)
	}
	if size < 0 || size > len(rest)-n {
		return LineBody{}, 0, protocolErrorf("%d lines in a malformed body of up to %d bytes", count, len(rest)-n)
	}
	lines.body = rest[n : n+size]
	return lines, n + size, nil
}

// LineBody is the changed lines of one page, checked. It borrows from the frame.
type LineBody struct {
	mask uint64 // bit i stands for bytes 64*i to 64*i+63
	body []byte
	raw  bool
}

// Apply writes the lines to the page, which has the content that the sender takes for the destination's.
// It fails, with nothing written, only if page is not of 4096 bytes.
func (l *LineBody) Apply(page []byte) error {
	if len(page) != memory.PageSize {
		return fmt.Errorf("lines for a page of %d bytes", len(page))
	}
	body := l.body
	for mask := l.mask; mask != 0; mask &= mask - 1 {
		line := (*[lineBytes]byte)(page[bits.TrailingZeros64(mask)*lineBytes:])
		if l.raw {
			body = body[copy(line[:], body):]
			continue
		}
		body = body[applyDelta(line, body):]
	}
	return nil
}

// Count is how many lines these are.
func (l *LineBody) Count() int { return bits.OnesCount64(l.mask) }
