package disk

import "errors"

// ErrLocked reports that another process, or another open file of this one,
// holds the lock.
var ErrLocked = errors.New("locked by another process")
