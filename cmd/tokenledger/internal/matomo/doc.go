// Package matomo reads the users, access rights and tokens of a Matomo
// installation: from its database, or from a dump of it.
//
// It promises all or nothing: [Database] reads in one transaction, and [Dump]
// refuses a file that does not end as mysqldump ends one. It takes the columns that
// are there, so it reads the tables of Matomo 2 to 6, and it never changes the
// database.
//
// It stores nothing. The installation's salt, the password of the database and
// plain tokens of Matomo 2 and 3 stay in memory, and appear in no error.
//
// It refuses a salt that does not fit the table (see [Source.UseSalt]). Rows that
// cannot be imported are left out and listed in [Source.Skipped].
package matomo
