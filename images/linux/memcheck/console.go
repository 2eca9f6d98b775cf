package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// maxCommandBytes bounds one line from the host.
const maxCommandBytes = 256

// console is the numbered output and the commands.
type console struct {
	checker  *checker
	job      *job
	warnings func() ([]string, error)
	machine  func(command string) error // poweroff, reboot
	every    chan time.Duration

	mu  sync.Mutex
	out io.Writer
	seq uint64
}

// print writes one numbered line in one write, so lines of workers never mix.
func (c *console) print(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	fmt.Fprintf(c.out, "memcheck seq=%d %s\n", c.seq, text)
}

func (c *console) status() {
	monotonic, realtime := c.checker.clocks.now()
	c.print(fmt.Sprintf("rounds=%d errors=%d uptime=%.3f realtime=%.3f maxgap_ms=%d jobs=%d",
		c.checker.finished(), c.checker.errors.Load(), float64(monotonic)/1e9, float64(realtime)/1e9,
		c.checker.clocks.maxGap.Load()/int64(time.Millisecond), c.job.done.Load()))
}

// tick prints the status at the interval that is set through every.
func (c *console) tick(interval time.Duration) {
	ticker := time.NewTicker(max(interval, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case interval, ok := <-c.every:
			if !ok {
				return
			}
			ticker.Stop()
			if interval > 0 {
				ticker.Reset(interval)
			}
		case <-ticker.C:
			c.status()
		}
	}
}

// serve obeys commands until quit or the end of in. A serial line has no end:
// with in closed (no terminal) the checks go on until the machine stops.
func (c *console) serve(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, maxCommandBytes), maxCommandBytes)
	for lines.Scan() {
		if !c.obey(strings.TrimSpace(lines.Text())) {
			return
		}
	}
	if lines.Err() != nil {
		fmt.Fprintln(os.Stderr, "memcheck: commands:", lines.Err())
	}
}

// obey does one command; false ends the program.
func (c *console) obey(command string) bool {
	word, rest, _ := strings.Cut(command, " ")
	switch word {
	case "":
	case "status":
		c.status()
	case "every":
		interval, err := time.ParseDuration(rest)
		if err != nil {
			c.print("unknown command " + command)
			break
		}
		c.every <- interval
	case "warnings":
		c.printWarnings()
	case "poweroff", "reboot":
		if err := c.machine(word); err != nil {
			c.print("error " + err.Error())
		}
	case "quit":
		return false
	default:
		c.print("unknown command " + command)
	}
	return true
}

func (c *console) printWarnings() {
	found, err := c.warnings()
	if err != nil {
		c.print("error " + err.Error())
		return
	}
	c.print(fmt.Sprintf("warnings=%d", len(found)))
	for _, text := range found {
		c.print("warning " + text)
	}
}
