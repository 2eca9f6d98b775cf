package view

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/fineline-vmm/fineline/migration"
)

// Row is one line of a table of numbers.
type Row struct{ Name, Value string }

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
		Row{"pages sent", fmt.Sprintf("%d and %d zero", r.PagesSent, r.ZeroPages)},
		Row{"rounds", fmt.Sprint(len(r.Rounds))})
	if r.Status == migration.StatusCompleted && !r.Converged {
		rows = append(rows, Row{"note", "the guest wrote faster than the link; the downtime goal was given up"})
	}
	return rows
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
		if round.Paused {
			glyph, left = "▒", "guest paused"
		}
		bar := strings.Repeat(glyph, length) + strings.Repeat(" ", pictureWidth-length)
		fmt.Fprintf(out, "  %5d  %s %9s %8.1f    %s\n", i+1, bar, Bytes(float64(round.Bytes)), round.MS, left)
	}
}

func scale(bytes uint64) float64 { return math.Log2(1 + float64(bytes)/1024) }
