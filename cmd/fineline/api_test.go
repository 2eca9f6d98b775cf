package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// TestFirecrackerFlow drives a machine as a client of Firecracker's API does, with the bodies written
// by hand, so that our client's view of the API is not what is tested.
func TestFirecrackerFlow(t *testing.T) {
	h := newHouse(t)
	m := h.start("vm", "")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", m.APIPath)
	}}}
	defer client.CloseIdleConnections()
	for i, c := range []struct {
		method, path, body string
		status             int
		answer             string // is in the answer
	}{
		{"GET", "/", "", 200, `"state":"Not started"`},
		{"GET", "/fineline/v1/metrics", "", 400, "no machine"},
		{"PATCH", "/vm", `{"state":"Paused"}`, 400, "not been started"},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, "no kernel"},
		{"PUT", "/machine-config", `{"vcpu_count":0,"mem_size_mib":64}`, 400, "vcpu_count is 0"},
		{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":0}`, 400, "mem_size_mib is 0"},
		{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":64}`, 204, ""},
		{"PUT", "/boot-source", `{"kernel_image_path":"absent.elf"}`, 204, ""},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, "absent.elf"},
		{"PUT", "/boot-source", `{"kernel_image_path":"builtin:dirty","boot_args":"vcpus=2 pages=64 rate=1000 progress=0"}`, 204, ""},
		{"GET", "/vm/config", "", 200, `"vcpu_count":2`},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 204, ""},
		{"GET", "/", "", 200, `"state":"Running"`},
		{"GET", "/fineline/v1/metrics", "", 200, `"port_io":{"unclaimed_reads":`},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, "started already"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":64}`, 400, "started already"},
		{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
		{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
		{"GET", "/", "", 200, `"state":"Paused"`},
		{"PATCH", "/vm", `{"state":"Resumed"}`, 204, ""},
		{"PATCH", "/vm", `{"state":"Resumed"}`, 204, ""},
		{"GET", "/", "", 200, `"state":"Running"`},
		{"GET", "/nowhere", "", 400, "fault_message"},
	} {
		req, err := http.NewRequestWithContext(h.ctx, c.method, "http://vm"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		_, err = answer.ReadFrom(resp.Body)
		if err = firstError(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || !strings.Contains(answer.String(), c.answer) {
			t.Errorf("%d: %s %s %s: %s %s", i, c.method, c.path, c.body, resp.Status, answer.String())
		}
	}
	if err := m.serial.AwaitReady(h.ctx); err != nil {
		t.Fatal(err)
	}
	m.checkRuns()
	m.stop()
}

// TestPausedMigration: who was paused arrives paused, with all that it wrote, and goes on when asked.
func TestPausedMigration(t *testing.T) {
	h := newHouse(t)
	src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
	before := src.checkRuns()
	if err := src.API.Pause(h.ctx); err != nil {
		t.Fatal(err)
	}
	// A migration that fails leaves it paused.
	if r, err := src.Migrate(h.ctx, request("unix:"+h.path("nobody.mig")), ignoreProgress); err == nil {
		t.Fatalf("migrated to nobody: %+v", r)
	}
	src.awaitPhase(api.Paused)
	dst, to := h.startIncoming("dst", "")
	if r := src.move(to); r.Status != migration.StatusCompleted {
		t.Fatalf("%+v", r)
	}
	if code := src.awaitExit(); code != 0 {
		t.Errorf("the source ended with %d", code)
	}
	dst.goesOn(before)
	dst.stop()
	if _, err := os.Lstat(dst.APIPath); !os.IsNotExist(err) {
		t.Errorf("the API socket: %v", err)
	}
}
