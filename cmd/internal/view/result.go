package view

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Row is one line of a table of numbers.
type Row struct{ Name, Value string }

// EndedThere is said of the guest of a Result that has it.
const EndedThere = "ended at the destination before all its memory was there"

// Rows lists the numbers of a migration.
func Rows(r *migration.Result) []Row {
	rows := []Row{{"status", string(r.Status)}, {"total", fmt.Sprintf("%.1f ms", r.TotalMS)}}
	if r.Status == migration.StatusCompleted {
		rows = append(rows,
			Row{"downtime", fmt.Sprintf("%.2f ms (%s)", r.DowntimeMS, r.DowntimeMeasured)},
			Row{"in the downtime", Bytes(float64(r.BytesInDowntime))})
	}
	rows = append(rows,
		Row{"bytes sent", Bytes(float64(r.BytesSent))},
		Row{"pages sent", fmt.Sprintf("%d and %d zero", r.PagesSent, r.ZeroPages)})
	clean := uint64(0)
	for _, round := range r.Rounds {
		clean += round.CleanPages
	}
	rows = appendIf(rows, r.Granularity == string(migration.GranularityLine) && r.LinesSent != 0,
		"lines sent", fmt.Sprintf("%d of 64 bytes; %d pages were as the destination had them", r.LinesSent, clean))
	rows = append(rows, byThePage(r)...)
	rows = appendIf(rows, r.BaselineBytes != 0, "baselines", Bytes(float64(r.BaselineBytes))+" of memory at the source")
	rows = appendIf(rows, r.SourceCPUMS != 0, "processor time", fmt.Sprintf("%.1f ms at the source, without its vCPUs", r.SourceCPUMS))
	rows = append(rows, Row{"rounds", fmt.Sprint(len(r.Rounds))})
	rows = appendIf(rows, r.ThrottlePercent != 0, "slowed down", fmt.Sprintf("the guest, by %d %% of its time", r.ThrottlePercent))
	rows = appendIf(rows, r.KeepSource, "source", "stays, and takes checkpoints of the guest: `fineline status` tells of them, `fineline stop` gives them up")
	if r.SwitchedToPostcopy {
		return append(rows, postcopyRows(r)...)
	}
	return appendIf(rows, r.Status == migration.StatusCompleted && r.Mode != string(wire.ModeLocal) && !r.Converged,
		"note", "the guest wrote faster than the link; the downtime goal was given up")
}

// byThePage says what the rounds after the first would have sent of the same pages without a knowledge of lines.
func byThePage(r *migration.Result) []Row {
	var pages, lines uint64
	for i, round := range r.Rounds {
		if i > 0 {
			pages += round.Pages + round.CleanPages
			lines += round.Lines
		}
	}
	if lines == 0 || r.Granularity != string(migration.GranularityLine) {
		return nil
	}
	asPages, asLines := float64(pages*memory.PageSize), float64(lines*diff.LineBytes)
	return []Row{{"by the page", fmt.Sprintf("%s in place of %s of lines after round 1: %.1f times", Bytes(asPages), Bytes(asLines), asPages/asLines)}}
}

// postcopyRows are those of a migration whose memory followed the guest.
func postcopyRows(r *migration.Result) []Row {
	f := r.Faults
	var rows []Row
	rows = appendIf(rows, r.EndedThere, "guest", EndedThere)
	rows = append(rows, Row{
		"after the guest", fmt.Sprintf("%d pages pushed, %d asked for, %d of them predicted", f.Background, f.Count+f.Prefetched, f.Prefetched),
	})
	waits := f.Count + f.Stocked
	rows = appendIf(rows, waits != 0, "guest's waits", fmt.Sprintf("%d: p50 %.0f us, p99 %.0f us, longest %.0f us; %d for pages that had come already",
		waits, f.P50US, f.P99US, f.MaxUS, f.Stocked))
	named := f.PredictedRight + f.PredictedWrong
	rows = appendIf(rows, named != 0, "prediction", fmt.Sprintf("%d of %d pages came before anybody waited; %d of %d misses had been named",
		f.PredictedStored, f.Prefetched, f.PredictedRight, named))
	return appendIf(rows, r.RecoveredTimes != 0, "recovered", fmt.Sprintf("%d times from a lost connection", r.RecoveredTimes))
}

func appendIf(rows []Row, yes bool, name, value string) []Row {
	if !yes {
		return rows
	}
	return append(rows, Row{name, value})
}

// Table writes rows in two columns.
func Table(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "  %s\t%s\n", r.Name, r.Value)
	}
	return w.Flush()
}

// pictureWidth is the length of the longest bar.
const pictureWidth = 44

// Rounds draws one bar a round, as long as the logarithm of its bytes, so that the
// last rounds can be seen beside the first.
func Rounds(out io.Writer, r *migration.Result) {
	var most float64
	for _, round := range r.Rounds {
		most = max(most, scale(round.Bytes))
	}
	if most == 0 {
		return
	}
	fmt.Fprintf(out, "  round  what was sent (bar: logarithm of bytes)%sms    written meanwhile\n", strings.Repeat(" ", pictureWidth-29))
	for i, round := range r.Rounds {
		length := int(math.Round(scale(round.Bytes) / most * pictureWidth))
		glyph, left := "█", fmt.Sprintf("%d pages", round.RemainingPages)
		if round.DirtyLinesPerS != 0 { // they were counted by the next round
			left = fmt.Sprintf("%s, %d lines", left, uint64(math.Round(round.DirtyLinesPerS*round.MS/1000)))
		}
		if round.Paused {
			glyph, left = "▒", "guest paused"
		}
		bar := strings.Repeat(glyph, length) + strings.Repeat(" ", pictureWidth-length)
		fmt.Fprintf(out, "  %5d  %s %9s %8.1f    %s\n", i+1, bar, Bytes(float64(round.Bytes)), round.MS, left)
	}
}

func scale(bytes uint64) float64 { return math.Log2(1 + float64(bytes)/1024) }
