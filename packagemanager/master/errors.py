"""What can go wrong on the master, split by who is at fault; each says the next step.

::

    PackageError
    └── MasterError
        ├── RepositoryError    where packages come from: a list or a package that is damaged or cannot be had
        ├── ImpossibleError    what is wanted cannot be together: the chain of who wants what is in the message
        └── RequestError       what the caller handed in: a wish, a state, a configuration
"""

from __future__ import annotations

from packagemanager.errors import PackageError


class MasterError(PackageError):
    pass


class RepositoryError(MasterError):
    pass


class ImpossibleError(MasterError):
    pass


class RequestError(MasterError):
    pass
