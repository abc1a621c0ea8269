//go:build !race

package leasemodel

const racing = false
