package track

import "math/bits"

// hugePageBytes is the larger page that amplification is told for.
const hugePageBytes = 2 << 20

// Window is a report in numbers. Lines, pages and bytes are those of pages that the device watched by the
// line all the time; pages that came, went, moved or that the device is not sure of are counted apart,
// since how much of them was written is not known.
type Window struct {
	Lines        uint64 `json:"lines"`
	Pages        uint64 `json:"pages"`
	Pages2M      uint64 `json:"pages_2m"`
	ChangedBytes uint64 `json:"changed_bytes,omitempty"`

	// What tracking by 4 KiB pages, 2 MiB pages and lines moves, as a multiple of the dirty lines, or of the
	// changed bytes; absent when nothing was written.
	Amplification4K *float64 `json:"amplification_4k,omitempty"`
	Amplification2M *float64 `json:"amplification_2m,omitempty"`
	Amplification64 *float64 `json:"amplification_64,omitempty"`

	MovedPages   uint64 `json:"moved_pages"`
	NewPages     uint64 `json:"new_pages"`
	GonePages    uint64 `json:"gone_pages"`
	InexactPages uint64 `json:"inexact_pages"`
	PresentPages uint64 `json:"present_pages"`
}

// Measure counts a report.
func Measure(r *Report) Window {
	w := Window{PresentPages: uint64(r.Present)}
	huge := uint64(1) // no page's number
	for _, p := range r.Pages {
		switch {
		case p.Flags&Moved != 0:
			w.MovedPages++
		case p.Flags&New != 0:
			w.NewPages++
		case p.Flags&Gone != 0:
			w.GonePages++
		case p.Flags&Inexact != 0:
			w.InexactPages++
		default:
			w.Pages++
			w.Lines += uint64(bits.OnesCount64(p.Lines))
			w.ChangedBytes += uint64(p.ChangedBytes)
			if h := p.Address &^ (hugePageBytes - 1); h != huge { // reports rise
				w.Pages2M++
				huge = h
			}
		}
	}
	lineBytes := w.Lines * LineBytes
	w.Amplification4K = ratio(w.Pages*PageBytes, lineBytes)
	w.Amplification2M = ratio(w.Pages2M*hugePageBytes, lineBytes)
	if w.ChangedBytes > 0 {
		w.Amplification64 = ratio(lineBytes, w.ChangedBytes)
	}
	return w
}

func ratio(a, b uint64) *float64 {
	if b == 0 {
		return nil
	}
	r := float64(a) / float64(b)
	return &r
}
