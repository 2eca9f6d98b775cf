package workload

import (
	"bufio"
	"context"
	"net"
	"strings"
	"testing"
)

func TestCmdline(t *testing.T) {
	l := Load{VCPUs: 2, Pages: 4096, Lines: 1, Pattern: "seq"}
	if got, want := l.Cmdline(), "vcpus=2 pages=4096 lines=1 pattern=seq rate=0 verify=0 progress=0"; got != want {
		t.Errorf("Cmdline() = %q, want %q", got, want)
	}
	if got := l.String(); !strings.Contains(got, "as fast as it can") {
		t.Errorf("String() = %q", got)
	}
	l.Rate = 500
	if got := l.String(); !strings.Contains(got, "1000 lines/s") {
		t.Errorf("String() = %q", got)
	}
}

func TestParseCheck(t *testing.T) {
	for _, c := range []struct {
		line string
		want Check
		bad  bool
	}{
		{line: "check steps=12 mismatches=0", want: Check{Steps: 12}},
		{
			line: "check steps=7 mismatches=2 first line=0x116000 vcpu=0 step=3",
			want: Check{Steps: 7, Mismatches: 2, First: "line=0x116000 vcpu=0 step=3"},
		},
		{line: "check steps=12", bad: true},
		{line: "check steps=12 mismatches=", bad: true},
		{line: "check steps=12 mismatches=-1", bad: true},
		{line: "check mismatches=0 steps=12", bad: true},
	} {
		got, err := parseCheck(c.line)
		if (err != nil) != c.bad || got != c.want {
			t.Errorf("parseCheck(%q) = %+v, %v", c.line, got, err)
		}
	}
}

// guestEnd plays the guest.
func guestEnd(t *testing.T) (*Guest, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	g := talk(ours)
	t.Cleanup(func() { g.Close(); theirs.Close() })
	return g, theirs
}

func TestConversation(t *testing.T) {
	g, guest := guestEnd(t)
	go func() {
		guest.Write([]byte("SeaBIOS (version x)\r\nBooting from ROM..dirty ready vcpus=1 pages=4096 base=0x1000\n"))
		command, _ := bufio.NewReader(guest).ReadByte()
		if command == 'c' {
			guest.Write([]byte("noise\ncheck steps=5 mismatches=0\n"))
		}
	}()
	if err := g.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := g.Check(t.Context()); err != nil || c.Steps != 5 || c.Mismatches != 0 {
		t.Errorf("Check() = %+v, %v", c, err)
	}
}

func TestSteps(t *testing.T) {
	g, guest := guestEnd(t)
	go func() {
		if command, _ := bufio.NewReader(guest).ReadByte(); command == 's' {
			guest.Write([]byte("dirty steps=123 mismatches=0\n"))
		}
	}()
	if n, err := g.Steps(t.Context()); err != nil || n != 123 {
		t.Errorf("Steps() = %d, %v", n, err)
	}
}

func TestGuestInTrouble(t *testing.T) {
	for _, line := range []string{"fault vector=14 error=0x4", "error: base: not on a page"} {
		g, guest := guestEnd(t)
		go guest.Write([]byte(line + "\n"))
		if err := g.AwaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("after %q: %v", line, err)
		}
	}
}

func TestGuestGone(t *testing.T) {
	g, guest := guestEnd(t)
	guest.Close()
	if err := g.AwaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("AwaitReady() = %v", err)
	}
	if _, err := g.Check(t.Context()); err == nil {
		t.Error("Check() of a closed port succeeds")
	}
}

func TestAwaitEndsWithContext(t *testing.T) {
	g, _ := guestEnd(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.AwaitReady(ctx); err == nil {
		t.Error("AwaitReady() succeeds")
	}
}

// TestUnreadLinesDoNotBlock: a chatty guest with no listener goes on.
func TestUnreadLinesDoNotBlock(t *testing.T) {
	_, guest := guestEnd(t)
	for range 4 * maxLines {
		if _, err := guest.Write([]byte("check steps=1 mismatches=0\n")); err != nil {
			t.Fatal(err)
		}
	}
}
