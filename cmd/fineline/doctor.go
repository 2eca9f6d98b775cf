package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fineline-vmm/fineline/vmm/doctor"
)

func newDoctorCommand() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, and what to install or enable",
		RunE: func(c *cobra.Command, _ []string) error {
			r := doctor.Examine()
			if asJSON {
				if err := json.NewEncoder(c.OutOrStdout()).Encode(r); err != nil {
					return err
				}
			} else if err := printReport(c.OutOrStdout(), r, all); err != nil {
				return err
			}
			if !r.Fit() {
				return errors.New("this host lacks something that Fineline needs")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&all, "all", false, "list every capability, not only what is missing or of interest")
	return c
}

func printReport(out io.Writer, r *doctor.Report, all bool) error {
	fmt.Fprintf(out, "KVM: %s, %d CPUs\n\n", r.KVM, r.CPUs)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	hidden := 0
	for _, f := range r.Findings {
		if !all && f.OK && f.Area == "kvm" && f.Name != "/dev/kvm" {
			hidden++
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", mark(f), f.Area, f.Name, f.Value, f.Meaning)
		if !f.OK && f.Remedy != "" {
			fmt.Fprintf(w, "\t\t\t→\t%s\n", f.Remedy)
		}
	}
	if hidden > 0 {
		fmt.Fprintf(w, "ok\tkvm\t%d capabilities\tpresent\tlist them with --all\n", hidden)
	}
	return w.Flush()
}

func mark(f doctor.Finding) string {
	switch {
	case f.OK:
		return "ok"
	case f.Required:
		return "MISSING"
	default:
		return "absent"
	}
}
