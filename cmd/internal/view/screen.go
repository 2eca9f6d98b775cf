package view

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The size of a picture where no terminal says one.
const (
	defaultCols = 80
	defaultRows = 24
)

// Screen shows pictures on a terminal, each in place of the one before.
type Screen struct {
	out *os.File
	// dumb terminals don't know how to go back: pictures follow each other there.
	dumb bool
}

// NewScreen takes the terminal's alternate screen, so that what was there comes back with Close.
func NewScreen(out *os.File) (*Screen, error) {
	s := &Screen{out: out, dumb: os.Getenv("TERM") == "dumb"}
	return s, s.send("\x1b[?1049h\x1b[?25l") // alternate screen, no cursor
}

func (s *Screen) send(codes string) error {
	if s.dumb {
		return nil
	}
	_, err := s.out.WriteString(codes)
	return err
}

// Show draws a picture of the size that the terminal has now.
func (s *Screen) Show(draw func(cols, rows int) *Grid) error {
	cols, rows := size(s.out)
	g := draw(cols, rows)
	if s.dumb {
		_, err := fmt.Fprintln(s.out, g.Text())
		return err
	}
	return s.send(g.Frame())
}

// Close gives the terminal back.
func (s *Screen) Close() error { return s.send("\x1b[?25h\x1b[?1049l") }

func size(f *os.File) (cols, rows int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return defaultCols, defaultRows
	}
	return int(ws.Col), int(ws.Row)
}

// HasColours reports whether the user's terminal shows colours, and he wants them (no-color.org).
func HasColours() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }
