// Package view shows a migration to people: a progress bar while it runs, and
// afterwards its numbers and a picture of its rounds.
package view
