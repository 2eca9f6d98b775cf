package svm

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
)

func event1(action, test, output string) event {
	return event{Action: action, Package: "p", Test: test, Output: output}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []event
		exit   channel.Exit
		want   Summary
		says   []string
	}{
		{
			name:   "all kinds",
			events: []event{event1("pass", "A", ""), event1("output", "B", "=== RUN   B\n"), event1("output", "B", "    x_test.go:1: no KVM\n"), event1("skip", "B", ""), event1("output", "C", "    boom\n"), event1("fail", "C", ""), event1("fail", "", "")},
			exit:   channel.Exit{Code: 1},
			want:   Summary{Passed: 1, Failed: 1, Skipped: 1},
			says:   []string{"SKIP  p B: x_test.go:1: no KVM\n", "FAIL  p C", "    boom\n", "exit status 1"},
		},
		{
			name:   "crash in a test",
			events: []event{event1("output", "A", "panic: oh\n")},
			exit:   channel.Exit{Code: -1, Signal: "SIGSEGV"},
			want:   Summary{Failed: 1},
			says:   []string{"A did not end", "panic: oh", "killed by SIGSEGV"},
		},
		{
			name:   "crash before tests",
			events: []event{event1("output", "", "flag provided but not defined\n")},
			exit:   channel.Exit{Code: 2},
			want:   Summary{Failed: 1},
			says:   []string{"flag provided", "exit status 2"},
		},
		{
			name: "could not start",
			exit: channel.Exit{Code: -1, Error: "no such file"},
			want: Summary{Failed: 1},
			says: []string{"no such file"},
		},
		{
			name: "nothing matched",
			want: Summary{},
			says: []string{"ok    p"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out, nil, false)
			r.begin("p")
			for _, e := range tt.events {
				r.event(e, nil)
			}
			r.end("p", tt.exit)
			if diff := cmp.Diff(tt.want, r.summary()); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
			for _, want := range append(tt.says, "svm: "+tt.want.String()+"\n") {
				if !strings.Contains(out.String(), want) {
					t.Errorf("report lacks %q:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestBrokenPackageIsAFailure(t *testing.T) {
	var out strings.Builder
	r := newReport(&out, nil, false)
	r.begin("p")
	r.event(event1("pass", "A", ""), nil)
	r.broken("p", ErrMachine)
	if got, want := r.summary(), (Summary{Passed: 1, Failed: 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestConverterReadsATestBinary(t *testing.T) {
	var got []string
	c, err := newConverter("p", func(e event, line []byte) {
		if e.Test != "" && e.Action != "output" {
			got = append(got, e.Action+" "+e.Test)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	const mark = "\x16" // what -test.v=test2json puts before its own lines
	io.WriteString(c, mark+"=== RUN   TestA\nnoise"+mark+"--- PASS: TestA (0.00s)\n")
	io.WriteString(c, mark+"=== RUN   TestB\n"+mark+"--- SKIP: TestB (0.00s)\n"+mark+"PASS\n")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"run TestA", "pass TestA", "run TestB", "skip TestB"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestQEMUArguments(t *testing.T) {
	args := qemuArgs(MachineOptions{Kernel: "k", Initramfs: "i", ConsoleLog: "/a,b", CPUs: 3, MemoryBytes: 1<<30 + 5})
	for _, want := range []string{"4", "1024M", "file,id=console,path=/a,,b"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %q in %q", want, args)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var tl tail
	tl.Write([]byte(strings.Repeat("a", tailBytes)))
	tl.Write([]byte("end\n"))
	if got := tl.String(); len(got) != tailBytes-1 || !strings.HasSuffix(got, "aend") {
		t.Errorf("%d bytes, ends %q", len(got), got[len(got)-4:])
	}
}

// fakeMachine is a Machine whose agent is the given function.
func fakeMachine(t *testing.T, agent func(*channel.Conn)) *Machine {
	host, guest := net.Pipe()
	t.Cleanup(func() { host.Close() })
	go func() {
		defer guest.Close()
		agent(channel.New(guest))
	}()
	return &Machine{socket: host, conn: channel.New(host), options: MachineOptions{ConsoleLog: "console.log"}}
}

func TestRunStreamsOutput(t *testing.T) {
	m := fakeMachine(t, func(c *channel.Conn) {
		var cmd channel.Command
		if err := c.ReceiveJSON(channel.KindRun, &cmd); err != nil {
			t.Error(err)
		}
		c.Send(channel.KindOutput, []byte("one "))
		c.Send(channel.KindOutput, []byte(cmd.Argv[0]))
		c.SendJSON(channel.KindExit, channel.Exit{Code: 7})
	})
	var out strings.Builder
	exit, err := m.Run(t.Context(), channel.Command{Argv: []string{"two"}}, &out)
	if err != nil || exit.Code != 7 || out.String() != "one two" {
		t.Errorf("%+v, %v, %q", exit, err, out.String())
	}
}

func TestRunWhenTheMachineDies(t *testing.T) {
	m := fakeMachine(t, func(c *channel.Conn) {
		c.Receive()
		c.Send(channel.KindOutput, []byte("last words"))
	})
	var out strings.Builder
	_, err := m.Run(t.Context(), channel.Command{Argv: []string{"x"}}, &out)
	if !errors.Is(err, ErrMachine) || !strings.Contains(err.Error(), "console.log") || out.String() != "last words" {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestRunUnexpectedFrame(t *testing.T) {
	m := fakeMachine(t, func(c *channel.Conn) {
		c.Receive()
		c.SendJSON(channel.KindHello, channel.Hello{})
	})
	if _, err := m.Run(t.Context(), channel.Command{Argv: []string{"x"}}, io.Discard); !errors.Is(err, ErrMachine) {
		t.Errorf("got %v, want %v", err, ErrMachine)
	}
}

func TestListPackagesRefusesThoseWithoutTests(t *testing.T) {
	if _, err := listPackages(t.Context(), []string{"./cmd/svmtest"}); err == nil {
		t.Error("no error for a package without tests")
	}
	got, err := listPackages(t.Context(), []string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		if filepath.Base(p.ImportPath) == "channel" {
			return
		}
	}
	t.Errorf("no channel in %v", got)
}
