package view

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration"
)

// barWidth leaves room for the numbers on a terminal of 80 columns.
const barWidth = 78

// Progress is a bar that fills once a round. On anything but a terminal it says
// nothing.
type Progress struct {
	bars *mpb.Progress
	bar  *mpb.Bar
	last atomic.Pointer[migration.Progress] // the bar draws in a goroutine of its own
}

// NewProgress starts a bar on f.
func NewProgress(f *os.File) *Progress {
	if !IsTerminal(f) {
		return &Progress{}
	}
	p := &Progress{bars: NewBars(f, barWidth)}
	p.last.Store(&migration.Progress{})
	p.bar = p.bars.New(0, mpb.BarStyle().Rbound("|").Lbound("|"),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return p.label() })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			last := p.last.Load()
			return fmt.Sprintf(" %s at %s/s", Bytes(float64(last.BytesSent)), Bytes(last.RateBytesPerS))
		})))
	return p
}

func (p *Progress) label() string {
	last := p.last.Load()
	if last.Round == 0 {
		return last.Phase + " "
	}
	return fmt.Sprintf("round %d %s ", last.Round, last.Phase)
}

// Show updates the bar.
func (p *Progress) Show(now migration.Progress) {
	if p.bar == nil {
		return
	}
	p.last.Store(&now)
	p.bar.SetTotal(max(int64(now.RoundPages), 1), false)
	p.bar.SetCurrent(min(int64(now.SentPages), int64(now.RoundPages)))
}

// Close removes the bar.
func (p *Progress) Close() {
	if p.bar == nil {
		return
	}
	p.bar.Abort(true)
	p.bars.Wait()
}

// NewBars draws on the terminal f, at most width columns wide.
func NewBars(f *os.File, width int) *mpb.Progress {
	var out io.Writer = f
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col == 0 {
		out = struct{ io.Writer }{f} // mpb would believe in a terminal without columns and draw nothing
	}
	return mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh(), mpb.WithWidth(width))
}

// IsTerminal reports whether f is one.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Bytes writes a number of bytes with three digits and a binary unit.
func Bytes(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.3g TiB", n)
}
