package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fineline-vmm/fineline/images"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// TestScripts runs testdata/script: what users type, right and wrong.
func TestScripts(t *testing.T) {
	vmmtest.NeedKVM(t)
	testscript.Run(t, testscript.Params{
		Condition: func(name string) (bool, error) {
			if name != "emulated" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return emulated(), nil
		},
		Dir:      "testdata/script",
		Deadline: time.Now().Add(3 * hangGuard), // for all of them: bounds what a script waits for
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"refused":    cmdRefused,
			"builtin":    cmdBuiltin,
			"await":      cmdAwait,
			"await-text": cmdAwaitText,
			"clean":      cmdClean,
			"stale":      cmdStale,
			"race":       cmdRace,
			"other-peer": cmdOtherPeer,
			"sparse":     cmdSparse,
			"certs":      cmdCerts,
			"free-port":  cmdFreePort,
		},
	})
}

// cmdRefused runs a program that must end at once, with one line on stderr:
//
//	refused CODE PATTERN PROGRAM [ARG...]
func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: refused CODE PATTERN PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[2], args[3:]...)
	code := exitCode(err)
	if code == exitSkip {
		ts.Logf("not possible on this host")
		return
	}
	if code != want {
		ts.Fatalf("exit code %d (%v), want %d", code, err, want)
	}
	stderr := ts.ReadFile("stderr")
	if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "fineline: ") {
		ts.Fatalf("stderr is not one line of fineline's:\n%s", stderr)
	}
	if !regexp.MustCompile(args[1]).MatchString(stderr) {
		ts.Fatalf("stderr does not match %q", args[1])
	}
	if stdout := ts.ReadFile("stdout"); stdout != "" {
		ts.Fatalf("stdout is not empty: %q", stdout)
	}
}

// cmdBuiltin writes a builtin guest, or its first bytes, to a file: builtin NAME FILE [BYTES].
func cmdBuiltin(ts *testscript.TestScript, _ bool, args []string) {
	image, ok := images.Builtin(args[0])
	if !ok {
		ts.Fatalf("no builtin %s", args[0])
	}
	if len(args) > 2 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		image = image[:n]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), image, 0o600))
}

// cmdSparse makes a file of zeros that takes no space: sparse FILE MIB.
func cmdSparse(ts *testscript.TestScript, _ bool, args []string) {
	mib, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), nil, 0o600))
	ts.Check(os.Truncate(ts.MkAbs(args[0]), mib<<20))
}

// cmdAwait waits until a machine is in a phase: await SOCKET PHASE.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), hangGuard)
	defer cancel()
	client := api.NewClient(ts.MkAbs(args[0]))
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		info, err := client.Info(ctx)
		if err == nil && info.Phase == args[1] {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s: %+v, %v; want %s", args[0], info, err, args[1])
		}
	}
}

// cmdAwaitText waits until a file, written by a program in the background, has a line that matches: await-text FILE PATTERN.
func cmdAwaitText(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[1])
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.After(hangGuard); ; {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && pattern.Match(text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("nothing in %s matches %q: %v\n%s", args[0], args[1], err, text)
		}
	}
}

// cmdClean checks that no socket and no journal is left below $WORK.
func cmdClean(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSocket || strings.HasSuffix(path, ".journal") {
			return fmt.Errorf("left behind: %s", path)
		}
		return nil
	}))
}

// cmdStale leaves the socket of a process that was killed: stale PATH.
func cmdStale(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unix"})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	ts.Check(l.Close())
}

// cmdRace runs one command many times at once; exactly one may succeed, and the others
// fail with a line that matches: race TIMES PATTERN PROGRAM [ARG...].
func cmdRace(ts *testscript.TestScript, _ bool, args []string) {
	times, err := strconv.Atoi(args[0])
	ts.Check(err)
	refusal := regexp.MustCompile(args[1])
	path, err := exec.LookPath(args[2])
	ts.Check(err)
	type outcome struct {
		code   int
		stderr string
	}
	outcomes := make([]outcome, times)
	var group sync.WaitGroup
	for i := range outcomes {
		group.Go(func() {
			var stderr bytes.Buffer
			cmd := exec.Command(path, args[3:]...)
			cmd.Dir, cmd.Stderr = ts.Getenv("WORK"), &stderr
			outcomes[i] = outcome{exitCode(cmd.Run()), stderr.String()}
		})
	}
	group.Wait()
	won := 0
	for _, o := range outcomes {
		switch {
		case o.code == 0:
			won++
		case o.code != 1 || strings.Count(o.stderr, "\n") != 1 || !refusal.MatchString(o.stderr):
			ts.Fatalf("a loser ended with %d and said %q", o.code, o.stderr)
		}
	}
	if won != 1 {
		ts.Fatalf("%d of %d succeeded", won, times)
	}
}

// cmdOtherPeer plays a destination of the next protocol version for one connection: other-peer PATH.
func cmdOtherPeer(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.ReadFull(conn, make([]byte, wire.HeaderBytes))
		var frame bytes.Buffer
		_ = wire.NewWriter(&frame).Message(wire.TypeRefuse, wire.NewReason("another version", false))
		reply := frame.Bytes()
		reply[4]++ // the version, see wire's "Frame"
		_, _ = conn.Write(reply)
		_, _ = io.Copy(io.Discard, conn)
	}()
	ts.Defer(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			ts.Logf("%v", err)
		}
		<-ended
	})
}
