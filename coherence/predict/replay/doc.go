// Package replay runs predictors against access patterns in a model of a post-copy pager.
package replay
