-- Nothing is granted to PUBLIC: grant_admin and grant_app give what a role needs.
REVOKE ALL ON ALL ROUTINES IN SCHEMA session_store FROM PUBLIC;
