package watch

import (
	"math/bits"
	"sort"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// pieces counts lines by their place in the ranges, which are laid end to end and cut into equal
// pieces of whole lines.
type pieces struct {
	ranges     []track.Range
	begins     []uint64 // where each range begins, in lines from the first
	pieceLines uint64
	counts     []uint32
}

func newPieces(ranges []track.Range) *pieces {
	s := &pieces{ranges: ranges}
	total := uint64(0)
	for _, r := range ranges {
		s.begins = append(s.begins, total)
		total += r.SizeBytes / track.LineBytes
	}
	s.pieceLines = (total + api.MaxTrackBuckets - 1) / api.MaxTrackBuckets
	if s.pieceLines > track.LinesPerPage { // whole pages are quicker, and what people expect
		s.pieceLines = (s.pieceLines + track.LinesPerPage - 1) / track.LinesPerPage * track.LinesPerPage
	}
	s.counts = make([]uint32, (total+s.pieceLines-1)/s.pieceLines)
	return s
}

func (s *pieces) clear() { clear(s.counts) }

func (s *pieces) add(p track.Page) {
	first, last := bits.TrailingZeros64(p.Lines), bits.Len64(p.Lines)-1
	if at := s.piece(p.GPA, first); at == s.piece(p.GPA, last) {
		s.counts[at] += uint32(bits.OnesCount64(p.Lines))
		return
	}
	for left := p.Lines; left != 0; left &= left - 1 {
		s.counts[s.piece(p.GPA, bits.TrailingZeros64(left))]++
	}
}

// piece is where a line of the page belongs. It is in a range.
func (s *pieces) piece(page memory.GPA, line int) uint64 {
	gpa := page + memory.GPA(line*track.LineBytes)
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Base > gpa }) - 1
	return (s.begins[i] + uint64(gpa-s.ranges[i].Base)/track.LineBytes) / s.pieceLines
}

func (s *pieces) detail(top []api.TrackPage) *api.TrackDetail {
	d := &api.TrackDetail{
		BucketBytes: s.pieceLines * track.LineBytes,
		Buckets:     append([]uint32{}, s.counts...),
		TopPages:    append([]api.TrackPage{}, top...),
	}
	for _, r := range s.ranges {
		d.Ranges = append(d.Ranges, api.TrackRange{Base: uint64(r.Base), SizeBytes: r.SizeBytes})
	}
	return d
}
