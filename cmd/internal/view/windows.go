package view

import (
	"fmt"
	"io"

	"github.com/fineline-vmm/fineline/vmm/api"
)

// Windows writes a line for each window of written lines, and before the first what the columns are.
type Windows struct {
	Out        io.Writer
	CountBytes bool
	titled     bool
}

// Add writes one line.
func (t *Windows) Add(w api.TrackWindow) error {
	if !t.titled {
		t.titled = true
		title := fmt.Sprintf("%6s %10s %10s %9s %10s %8s %8s %8s", "window", "start_ms", "length_ms", "pages", "lines", "pages_2m", "amp_4k", "amp_2m")
		if t.CountBytes {
			title += fmt.Sprintf(" %13s %8s", "changed_bytes", "amp_64")
		}
		if _, err := fmt.Fprintf(t.Out, "%s %8s %10s\n", title, "inexact", "harvest_ms"); err != nil {
			return err
		}
	}
	line := fmt.Sprintf("%6d %10.1f %10.1f %9d %10d %8d %8s %8s",
		w.Window, w.StartMS, w.LengthMS, w.Pages, w.Lines, w.Pages2M, decimal(w.Amplification4K), decimal(w.Amplification2M))
	if w.ChangedBytes != nil {
		line += fmt.Sprintf(" %13d %8s", *w.ChangedBytes, decimal(w.Amplification64))
	}
	_, err := fmt.Fprintf(t.Out, "%s %8d %10.1f\n", line, w.InexactPages, w.HarvestMS)
	return err
}

// decimal is an amplification in a column, or "-" where nothing was written.
func decimal(a *float64) string {
	if a == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *a)
}
