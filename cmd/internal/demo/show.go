package demo

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/migration"
)

// Silent shows nothing.
func Silent() Show {
	return Show{Step: func(string, ...any) {}, Progress: func(migration.Progress) {}, Settled: func() {}}
}

// Terminal shows steps on out, and progress as a bar on bar if that is a terminal, else as a
// line for each round on out.
func Terminal(out io.Writer, bar *os.File) Show {
	s := Show{Step: func(format string, args ...any) { fmt.Fprintf(out, "· "+format+"\n", args...) }}
	if view.IsTerminal(bar) {
		var p *view.Progress // made when there is progress: a bar owns the lines below it
		s.Progress = func(now migration.Progress) {
			if p == nil {
				p = view.NewProgress(bar)
			}
			p.Show(now)
		}
		s.Settled = func() {
			if p != nil {
				p.Close()
			}
		}
	} else {
		l := &roundLines{out: out}
		s.Progress, s.Settled = l.show, l.flush
	}
	return s
}

// roundLines writes a line when a round is over.
type roundLines struct {
	out  io.Writer
	last migration.Progress
}

func (l *roundLines) show(p migration.Progress) {
	if p.Round != l.last.Round {
		l.flush()
	}
	l.last = p
}

func (l *roundLines) flush() {
	if l.last.Round > 0 {
		fmt.Fprintf(l.out, "    round %d: %d pages, %s sent so far\n",
			l.last.Round, l.last.RoundPages, view.Bytes(float64(l.last.BytesSent)))
	}
	l.last = migration.Progress{}
}

// Print writes the table and the picture.
func (r *Report) Print(out io.Writer) error {
	rows := append(view.Rows(r.Migration),
		view.Row{Name: "mismatches", Value: strconv.FormatUint(r.Mismatches, 10)})
	fmt.Fprintln(out)
	if err := view.Table(out, rows); err != nil {
		return err
	}
	fmt.Fprintln(out)
	view.Rounds(out, r.Migration)
	return nil
}
