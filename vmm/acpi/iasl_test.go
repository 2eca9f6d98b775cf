package acpi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReferenceCompilerAgrees takes every table apart with ACPICA's compiler, assembles the source again and
// wants the same bytes, so what we mean and what a guest reads is the same.
func TestReferenceCompilerAgrees(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("iasl is not installed (Debian: acpica-tools): the tables are not compared with the reference compiler")
	}
	wide := testConfig()
	wide.CPUs, wide.ECAMBuses = 64, 256
	wide.PCIWindow64Base, wide.PCIWindow64Bytes = 1<<40, 1<<38
	for name, cfg := range map[string]Config{"usual": testConfig(), "wide": wide} {
		for signature, table := range findTables(t, writeTables(t, cfg)) {
			t.Run(name+"/"+signature, func(t *testing.T) { roundTrip(t, iasl, signature, table) })
		}
	}
}

func roundTrip(t *testing.T, iasl, signature string, table []byte) {
	dir := t.TempDir()
	run := func(args ...string) string {
		cmd := exec.Command(iasl, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("iasl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if err := os.WriteFile(filepath.Join(dir, "in.aml"), table, 0o600); err != nil {
		t.Fatal(err)
	}
	run("-d", "in.aml")
	source, err := os.ReadFile(filepath.Join(dir, "in.dsl"))
	if err != nil {
		t.Fatal(err)
	}
	if out := run("-p", "out", "in.dsl"); !strings.Contains(out, "0 Errors, 0 Warnings, 0 Remarks") {
		t.Fatalf("reassembly: %s\n%s", out, source)
	}
	again, err := os.ReadFile(filepath.Join(dir, "out.aml"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := withoutCreator(signature, again), withoutCreator(signature, table); !bytes.Equal(got, want) {
		t.Errorf("reassembled differently\ngot  % x\nwant % x\n%s", got, want, source)
	}
}

// withoutCreator clears the fields in which the compiler names itself, and the checksum over them.
func withoutCreator(signature string, table []byte) []byte {
	if signature == "FACS" {
		return table
	}
	p := bytes.Clone(table)
	p[checksumOffset] = 0
	clear(p[28:headerBytes])
	return p
}
