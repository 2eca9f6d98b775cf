package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

// hangGuard only ends a test that hangs; no result depends on it.
const hangGuard = time.Minute

func guarded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangGuard)
	t.Cleanup(cancel)
	return ctx
}

// connect returns a Monitor whose commands are answered by answer, with any number of lines.
func connect(t *testing.T, answer func(command string, arguments json.RawMessage) []string) *Monitor {
	t.Helper()
	ours, theirs := net.Pipe()
	go serve(theirs, answer)
	m, err := NewMonitor(guarded(t), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); theirs.Close() })
	return m
}

func serve(conn net.Conn, answer func(string, json.RawMessage) []string) {
	out := make(chan string, 64) // as a socket has it: QEMU sends events while a command comes
	defer close(out)
	go func() {
		for line := range out {
			conn.Write([]byte(line + "\r\n"))
		}
	}()
	send := func(line string) { out <- line }
	send(greeting)
	for s := bufio.NewScanner(conn); s.Scan(); {
		var c struct {
			Execute   string
			Arguments json.RawMessage
		}
		if json.Unmarshal(s.Bytes(), &c) != nil {
			conn.Close()
			return
		}
		if c.Execute == "qmp_capabilities" {
			send(`{"return": {}}`)
			continue
		}
		for _, line := range answer(c.Execute, c.Arguments) {
			send(line)
		}
	}
}

func TestExecute(t *testing.T) {
	m := connect(t, func(command string, _ json.RawMessage) []string {
		switch command {
		case "query-status":
			return []string{
				`{"timestamp": {"seconds": 7, "microseconds": 250000}, "event": "STOP"}`,
				`{"return": {"status": "paused"}}`,
			}
		case "bad":
			return []string{`{"error": {"class": "GenericError", "desc": "no such thing"}}`}
		}
		return []string{`{"return": {}}`}
	})
	var status struct{ Status string }
	if err := m.Execute(guarded(t), "query-status", nil, &status); err != nil || status.Status != "paused" {
		t.Errorf("Execute: %+v, %v", status, err)
	}
	if err := m.Execute(guarded(t), "bad", map[string]any{"a": 1}, nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("an error of QEMU's: %v", err)
	}
	e, err := m.Await(guarded(t)) // was met before the answer to query-status
	if err != nil || e.Name != "STOP" || !e.Time().Equal(time.Unix(7, 250_000_000)) {
		t.Errorf("Await: %+v, %v", e, err)
	}
}

func TestMonitorEnds(t *testing.T) {
	for name, line := range map[string]string{"garbage": "]", "closed": ""} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				if line != "" {
					theirs.Write([]byte(line + "\n"))
				}
				theirs.Close()
			}()
			if _, err := NewMonitor(guarded(t), ours); err == nil {
				t.Error("NewMonitor succeeds")
			}
		})
	}
	t.Run("no greeting", func(t *testing.T) {
		ours, theirs := net.Pipe()
		go theirs.Write([]byte(`{"return": {}}` + "\n"))
		if _, err := NewMonitor(guarded(t), ours); err == nil || !strings.Contains(err.Error(), "greet") {
			t.Errorf("NewMonitor: %v", err)
		}
	})
	t.Run("context", func(t *testing.T) {
		m := connect(t, func(string, json.RawMessage) []string { return nil })
		ctx, cancel := context.WithCancel(guarded(t))
		cancel()
		if err := m.Execute(ctx, "stop", nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Execute: %v", err)
		}
	})
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright": "7.2.22",
		"QEMU emulator version 10.0.0\n":                                "10.0.0",
		"QEMU emulator version ":                                        "",
		"something else":                                                "",
	} {
		got, err := parseVersion(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parseVersion(%q) = %q, %v", text, got, err)
		}
	}
}
