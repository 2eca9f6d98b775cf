package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// view shows windows to people or to programs.
type view interface {
	row(row) error
	end() error // the summary
}

func newView(asJSON bool, w io.Writer) view {
	if asJSON {
		return &jsonView{out: json.NewEncoder(w)}
	}
	return &tableView{out: w}
}

// sum is the summary of all windows.
type sum struct {
	Windows      int     `json:"windows"`
	Seconds      float64 `json:"seconds"`
	Lines        uint64  `json:"lines"`
	Pages        uint64  `json:"pages"` // of each window, added up
	ChangedBytes uint64  `json:"changed_bytes,omitempty"`
	MovedPages   uint64  `json:"moved_pages"`
	// Mean4K weighs windows by their lines, as moving all of them would.
	Mean4K *float64 `json:"amplification_4k,omitempty"`
}

func (s *sum) add(r row) {
	s.Windows++
	s.Seconds += r.Seconds
	s.Lines += r.Lines
	s.Pages += r.Pages
	s.ChangedBytes += r.ChangedBytes
	s.MovedPages += r.MovedPages
	if s.Lines > 0 {
		mean := float64(s.Pages) * 64 / float64(s.Lines)
		s.Mean4K = &mean
	}
}

type jsonView struct {
	out *json.Encoder
	sum sum
}

func (v *jsonView) row(r row) error {
	v.sum.add(r)
	return v.out.Encode(r)
}

func (v *jsonView) end() error {
	return v.out.Encode(struct {
		Summary sum `json:"summary"`
	}{v.sum})
}

type tableView struct {
	out io.Writer
	sum sum
}

const (
	headFormat = "%6s %8s %9s %8s %8s %8s %8s %7s %7s %7s %8s\n"
	rowFormat  = "%6d %8.2f %9d %8d %8s %8s %8s %7d %7d %7d %8.2f\n"
)

func (v *tableView) row(r row) error {
	if v.sum.Windows == 0 {
		fmt.Fprintf(v.out, headFormat, "window", "seconds", "lines", "pages", "amp4k", "amp2m", "amp64", "moved", "new", "gone", "cpu ms")
	}
	v.sum.add(r)
	_, err := fmt.Fprintf(v.out, rowFormat, r.Number, r.Seconds, r.Lines, r.Pages, times(r.Amplification4K), times(r.Amplification2M),
		times(r.Amplification64), r.MovedPages, r.NewPages, r.GonePages, r.CPUMS)
	return err
}

func (v *tableView) end() error {
	_, err := fmt.Fprintf(v.out, "%d windows, %.1f s: %d lines in %d pages, 4 KiB amplification %s, %d pages moved\n",
		v.sum.Windows, v.sum.Seconds, v.sum.Lines, v.sum.Pages, times(v.sum.Mean4K), v.sum.MovedPages)
	return err
}

// times shows a factor that may be unknown.
func times(f *float64) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.2fx", *f)
}
