package view

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
)

// barWidth leaves room for the numbers on a terminal of 80 columns.
const barWidth = 78

// Progress is a bar that fills once a round, and once when memory follows the guest. On anything but a terminal it says
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
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return Label(p.last.Load()) + " " })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + Speed(p.last.Load()) })))
	return p
}

// Label says what a migration does.
func Label(p *migration.Progress) string {
	switch {
	case p.Phase == migration.PhasePostcopy && p.AbsentPages == 0:
		return "all sent, the destination stores the last"
	case p.Phase == migration.PhasePostcopy:
		return "memory follows the guest"
	case p.Phase == migration.PhaseReconnecting:
		return "guest paused: connection lost"
	case p.Phase == migration.PhaseSettling:
		return "guest paused: asking the destination"
	case p.Round == 0 || p.Phase != migration.PhasePrecopy:
		return p.Phase
	case p.ThrottlePercent != 0:
		return fmt.Sprintf("round %d, guest slowed by %d%%", p.Round, p.ThrottlePercent)
	}
	return fmt.Sprintf("round %d", p.Round)
}

// Speed says how much a migration has sent, and how long it will take.
func Speed(p *migration.Progress) string {
	sent := Bytes(float64(p.BytesSent))
	switch {
	case p.Phase == migration.PhaseReconnecting && p.AbsentPages == 0: // the lost connection may have held much of it
		return fmt.Sprintf("%s, not known what has arrived", sent)
	case p.Phase == migration.PhaseReconnecting:
		return fmt.Sprintf("%s, at least %s to come", sent, Bytes(float64(p.AbsentPages*memory.PageSize)))
	case p.Phase == migration.PhaseSettling:
		return sent
	case p.LeftMS != nil:
		return fmt.Sprintf("%s, %s left", sent, seconds(*p.LeftMS))
	case p.RoundLeftMS != nil:
		return fmt.Sprintf("%s, round: %s", sent, seconds(*p.RoundLeftMS))
	}
	return fmt.Sprintf("%s at %s/s", sent, Bytes(p.RateBytesPerS))
}

// seconds is a time to wait, as exact as an estimate is.
func seconds(ms float64) string {
	switch s := ms / 1000; {
	case s < 1:
		return "<1 s"
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	default:
		return fmt.Sprintf("%.0f min", s/60)
	}
}

// Show updates the bar.
func (p *Progress) Show(now migration.Progress) {
	if p.bar == nil {
		return
	}
	p.last.Store(&now)
	done, total := now.SentPages, now.RoundPages
	if now.PostcopyPages != 0 {
		done, total = now.PostcopyPages-min(now.AbsentPages, now.PostcopyPages), now.PostcopyPages
	}
	p.bar.SetTotal(max(int64(total), 1), false)
	p.bar.SetCurrent(min(int64(done), int64(total)))
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
