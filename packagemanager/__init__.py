"""The package manager: the master decides, the device converges, and recovery finishes what a power cut began.

How it works is on one page: docs/packages.md. `transact` is where to begin to read. Where what is:

Words that all share
    errors              what can go wrong, by who is at fault
    entry               what a package consists of: entries and control files
    operation           what a transaction does to the file system: five acts
    phases              the phases of a transaction
    tree                the file system as a protocol; `root` is the real one below a folder
    wanted              the wanted set as bytes
    files               what a package put, as bytes
    version             Debian's order of versions
    control             Debian's paragraphs, and what packages ask of each other
    status              dpkg's `status` as a text
    ledger              what somebody else is told of a transaction, as a protocol: the journal

A package and a transaction as they travel
    ar, tar, tar_header the archives in a `.deb`
    deb                 a `.deb`: a source
    recipe              a delta part as bytes
    delta               a package from old files and a delta part: a source
    transaction_index   what a transaction holds, as bytes
    transaction         a transaction as the device reads it
    store               transactions that are kept outside of the root

Carrying a plan out, whatever it is about
    root                every path is walked inside of the root
    places              where our own files are
    whole_file          reading a small file within a bound
    staging             what comes, put down beside the system
    plan_file           the plan and the phase as bytes
    plan_check          whether a plan fits what is there
    room                space that is kept for what comes after the intent
    steps               one operation, done or undone
    keeping             second names for what a plan replaces or removes
    unchanged           whether the system is as a plan found it, after a wait
    discarded           what cannot be removed, out of the way
    damage              a phase that was lost, told by what is there
    engine              a plan, carried out so that any cut can be gone on from

What is there, and what shall be
    database            dpkg's database, read
    ground              where paths lie, and what is there
    order               what is asked for, and who brings it
    changes             package by package
    incoming            a package that comes, unpacked
    claims              which package has which place
    conffiles           what becomes of a file that its owner may change
    arriving, leaving   what comes and what goes, path by path
    plan_database       the database afterwards
    plan                all of it as operations in their order

Maintainer scripts
    calls               which are called with which words
    triggers            who is interested in what
    script_plan         all calls of a transaction, as a value and as bytes
    supported           what they may want
    turns               what they have to know of a transaction
    taken_away          second names for what they may take away
    process             running a program, bounded
    scripts             running them at least once

The flow, and what stands beside it
    space               whether there is room
    dpkg_lock           keeping dpkg and apt out
    transact            a transaction, from the first step to the last
    adopt               taking over a system that dpkg made
    verify              whether everything is as it was put
    rebuild             what a system cannot be read without
    repair_plan, repair bringing back what is damaged
    opened              what a command reads from
    cli                 the verbs of `unbrick packages`

`master/` is the other side, on the build host.
"""
