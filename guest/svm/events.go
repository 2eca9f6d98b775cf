package svm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// event is one line of test2json (`go doc test2json`).
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64 // seconds
	Output  string
}

// converter turns a test binary's output into events by the Go toolchain's own
// test2json.
type converter struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan error // what reading the events ended with
}

// newConverter starts a conversion. handle is called with each event and its
// JSON line, from another goroutine, never after Close has returned.
//
// No context: Close ends it, and the events up to a timeout still count.
func newConverter(pkg string, handle func(event, []byte)) (*converter, error) {
	cmd := exec.Command("go", "tool", "test2json", "-t", "-p", pkg)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	c := &converter{cmd: cmd, stdin: stdin, done: make(chan error, 1)}
	go func() { c.done <- readEvents(stdout, handle) }()
	return c, nil
}

func readEvents(r io.Reader, handle func(event, []byte)) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("test2json: %w", err)
		}
		handle(e, line)
	}
}

// Write passes on a piece of the test binary's output.
func (c *converter) Write(p []byte) (int, error) { return c.stdin.Write(p) }

// Close ends the input and waits until all events are handled.
func (c *converter) Close() error {
	closeErr := c.stdin.Close()
	readErr := <-c.done
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("go tool test2json: %w", err)
	}
	return errors.Join(closeErr, readErr)
}
