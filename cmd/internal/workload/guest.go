package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// answerTimeout is generous: a check reads every line, and machines are busy.
const answerTimeout = time.Minute

const pageBytes = 4096

const (
	maxLineBytes = 64 << 10 // firmware may have written into the same line
	maxLines     = 16       // of interest, and not yet asked for
)

const (
	ready   = "dirty ready "
	checked = "check steps="
	stepped = "dirty steps="
)

// trouble marks the lines that end the guest.
var trouble = []string{"fault vector=", "error: "}

// Check is what the guest found when it compared all its memory with what must be there.
type Check struct {
	Steps      uint64 `json:"steps"`      // stores so far, of all vCPUs
	Mismatches uint64 `json:"mismatches"` // lines that are lost or stale
	// First names the first wrong line, in the guest's words.
	First string `json:"first,omitempty"`
}

// Guest is the conversation with one running builtin:dirty.
type Guest struct {
	conn  io.ReadWriteCloser
	lines chan string // closed when the serial port has closed

	// Region is where the guest writes, known after AwaitReady.
	Region struct{ Base, SizeBytes uint64 }
}

// Dial connects to the Unix socket that a VMM serves as the guest's serial port.
func Dial(ctx context.Context, path string) (*Guest, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the guest's serial port: %w", err)
	}
	return talk(conn), nil
}

func talk(conn io.ReadWriteCloser) *Guest {
	g := &Guest{conn: conn, lines: make(chan string, maxLines)}
	go g.read()
	return g
}

func (g *Guest) read() {
	defer close(g.lines)
	s := bufio.NewScanner(g.conn)
	s.Buffer(nil, maxLineBytes)
	for s.Scan() {
		for _, marker := range append([]string{ready, checked, stepped}, trouble...) {
			// Not only a prefix: firmware may have written into the same line.
			at := strings.Index(s.Text(), marker)
			if at < 0 {
				continue
			}
			select {
			case g.lines <- s.Text()[at:]:
			default: // nobody has asked for the ones before
			}
			break
		}
	}
}

// AwaitReady returns when every vCPU writes.
func (g *Guest) AwaitReady(ctx context.Context) error {
	line, err := g.await(ctx, ready)
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(line) {
		name, value, _ := strings.Cut(field, "=")
		n, err := strconv.ParseUint(value, 0, 64)
		switch {
		case name == "base" && err == nil:
			g.Region.Base = n
		case name == "pages" && err == nil:
			g.Region.SizeBytes = n * pageBytes
		}
	}
	if g.Region.Base == 0 || g.Region.SizeBytes == 0 {
		return fmt.Errorf("the guest does not say where it writes: %q", line)
	}
	return nil
}

// Check asks the guest to stop between two stores, compare all lines and go on.
func (g *Guest) Check(ctx context.Context) (Check, error) {
	if _, err := io.WriteString(g.conn, "c"); err != nil {
		return Check{}, fmt.Errorf("ask the guest for a check: %w", err)
	}
	line, err := g.await(ctx, checked)
	if err != nil {
		return Check{}, err
	}
	return parseCheck(line)
}

// Steps asks how many stores the guest has made, and stops none. The guest answers within 10 ms.
func (g *Guest) Steps(ctx context.Context) (uint64, error) {
	if _, err := io.WriteString(g.conn, "s"); err != nil {
		return 0, fmt.Errorf("ask the guest for its steps: %w", err)
	}
	line, err := g.await(ctx, stepped)
	if err != nil {
		return 0, err
	}
	c, err := parseCheck(strings.Replace(line, stepped, checked, 1))
	return c.Steps, err
}

// Close ends the conversation, not the guest.
func (g *Guest) Close() error { return g.conn.Close() }

// await returns the next line that begins with marker.
func (g *Guest) await(ctx context.Context, marker string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout,
		fmt.Errorf("the guest was silent for %v", answerTimeout))
	defer cancel()
	for {
		select {
		case line, ok := <-g.lines:
			switch {
			case !ok:
				return "", errors.New("the guest's serial port closed before it answered")
			case strings.HasPrefix(line, marker):
				return line, nil
			case !strings.HasPrefix(line, ready) && !strings.HasPrefix(line, checked) && !strings.HasPrefix(line, stepped):
				return "", fmt.Errorf("the guest says %q", line)
			}
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the guest's %q: %w", strings.TrimSpace(marker), context.Cause(ctx))
		}
	}
}

// parseCheck reads "check steps=N mismatches=M [first line=...]".
func parseCheck(line string) (Check, error) {
	var c Check
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return c, fmt.Errorf("the guest's check is cut: %q", line)
	}
	for i, field := range []struct {
		key string
		to  *uint64
	}{{"steps=", &c.Steps}, {"mismatches=", &c.Mismatches}} {
		digits, ok := strings.CutPrefix(fields[i+1], field.key)
		n, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil {
			return Check{}, fmt.Errorf("the guest's check is not understood: %q", line)
		}
		*field.to = n
	}
	c.First = strings.TrimPrefix(strings.Join(fields[3:], " "), "first ")
	return c, nil
}
